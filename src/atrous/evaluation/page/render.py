"""From templates to a page that needs nothing but itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

LAYERS = {"truth": "ground truth", "prediction": "prediction", "errors": "errors", "none": "photo"}
"""What can be shown over a photo: keys and names of layers."""


def render(template: str, **values: Any) -> bytes:
    """Fill a template of this package.

    Args:
        template: its file.
        values: what it needs; ``swatches`` are the CSS colours of the classes ``w0``, ``w1``, ….
    """
    page = _environment().get_template(template)
    return page.render(version=version("atrous"), **{"swatches": (), "errors": (), **values}).encode(errors="replace")


@cache
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("atrous.evaluation.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"points": points, "counted": counted, "breakable": breakable}
    return found


def points(share: float | None) -> str:
    """A share, 0 to 1, in percent with one decimal; "–" if it is undefined."""
    return "–" if share is None else f"{100 * share:.1f}"


def counted(number: int, noun: str) -> str:
    """A number with its noun: ``1 image``, ``1,200 images``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def breakable(name: str) -> Markup:
    """A name that may be broken after each underscore and slash."""
    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[_/])", name))


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: ``a``, ``a and b``, ``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
