"""Functions that a recipe names as ``module:function``."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from atrous.errors import InputError


def import_function(name: str) -> Callable[..., Any]:
    """Import a function by its name, ``package.module:function``.

    Raises:
        InputError: the name has another form, the module can't be imported, or it has no such function.
    """
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise InputError(f"'{name}' is not of the form module:function")
    try:
        found = import_module(module)
    except ImportError as error:
        raise InputError(f"'{name}': can't import '{module}' ({error}); is it on PYTHONPATH?") from error
    function = getattr(found, attribute, None)
    if not callable(function):
        raise InputError(f"'{name}': the module {module} has no function '{attribute}'")
    return function  # type: ignore[no-any-return]
