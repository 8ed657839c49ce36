"""Options of models: their types, and checking what a user gives for them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

from atrous.errors import InputError, InputTypeError

Positive = Annotated[int, Field(ge=1)]
"""A count."""
NotNegative = Annotated[int, Field(ge=0)]
"""A count where 0 means none."""
Probability = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
"""Dropout probability."""
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""Of random choices."""


def check_options(name: str, build: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """The options of a builder, completed by its defaults.

    Args:
        name: of the model, for messages.
        build: takes ``backbone``, ``label_set`` and the options; its annotations are what the options are checked
            against.
        options: what the user gave.

    Raises:
        InputTypeError: an unknown option, or a missing one without a default.
        InputError: a value that does not fit the annotation.
    """
    parameters = inspect.signature(build).parameters
    defaults = {k: p.default for k, p in parameters.items() if k not in ("backbone", "label_set")}
    if unknown := sorted(options.keys() - defaults.keys()):
        raise InputTypeError(f"'{name}' has no option {', '.join(unknown)}; it has: {', '.join(sorted(defaults))}")
    if missing := [k for k, v in defaults.items() if v is inspect.Parameter.empty and k not in options]:
        raise InputTypeError(f"'{name}' needs the option {', '.join(missing)}")
    types = get_type_hints(build, include_extras=True)
    return defaults | {key: _validated(key, types.get(key, Any), value) for key, value in options.items()}


def _validated(key: str, type_: Any, value: Any) -> Any:
    try:
        return TypeAdapter(type_).validate_python(value)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, (key, *e['loc'])))}: {e['msg']}, not {e['input']!r}" for e in error.errors()]
        raise InputError("; ".join(wrong)) from error
