"""Importing timm and torchvision without torch's compiler, which takes as long to import as torch itself.

Neither compiles anything while it is imported: one operator of torchvision's asks whether the compiler could take it,
and one of timm's layers is marked as not for the compiler. Here both questions wait until somebody calls these.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_ASKED = "torch._dynamo.utils"


def import_timm() -> None:
    """Import timm, which imports torchvision, unless it or torch's compiler is there already."""
    if "timm" in sys.modules:
        return
    import torch

    if _ASKED in sys.modules or not hasattr(torch, "_disable_dynamo"):
        return
    before = set(sys.modules)
    try:
        with _compiler_later():
            import timm  # noqa: F401
    except Exception:  # another version asks for more: it is imported once more, with the compiler
        for name in set(sys.modules) - before:
            if name.partition(".")[0] in ("timm", "torchvision"):
                del sys.modules[name]


@contextmanager
def _compiler_later() -> Iterator[None]:
    """Answer the two questions without the compiler for a while."""
    import torch

    stand_in: Any = ModuleType(_ASKED)
    stand_in.is_compile_supported = _is_compile_supported
    compiler: Any = torch.compiler
    disable = compiler.disable
    sys.modules[_ASKED] = stand_in
    compiler.disable = vars(torch)["_disable_dynamo"]  # the same, but it imports the compiler when it is called
    try:
        yield
    finally:
        compiler.disable = disable
        if sys.modules.get(_ASKED) is stand_in:
            del sys.modules[_ASKED]


def _is_compile_supported(device_type: str) -> bool:
    from torch._dynamo.utils import is_compile_supported

    return bool(is_compile_supported(device_type))
