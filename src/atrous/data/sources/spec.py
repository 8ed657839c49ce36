"""Specifications of datasets: ``SOURCE:PATH``, with options behind a question mark."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple, cast

from atrous.data.files.shapes import OVERLAPS, Overlap
from atrous.errors import DatasetError

OPTIONS = ("overlap", "classes")
_OPTIONS = re.compile(rf"\?((?:{'|'.join(OPTIONS)})=.*)$")


class Spec(NamedTuple):
    """A specification: the source, its path, which shape lies over which, and a table of classes."""

    kind: str
    place: str
    overlap: Overlap | None = None
    classes: str | None = None

    @property
    def text(self) -> str:
        """As it is written."""
        options = "&".join(f"{key}={value}" for key, value in zip(OPTIONS, self[2:], strict=True) if value)
        return f"{self.kind}:{self.place}" + (f"?{options}" if options else "")


def parse_spec(spec: str) -> Spec:
    """Take ``SOURCE:PATH?overlap=last&classes=table.toml`` apart; both options may be missing.

    Raises:
        DatasetError: an unknown rule of overlap.
    """
    kind, colon, rest = spec.partition(":")
    found = _OPTIONS.search(rest)
    if not colon or not found:
        return Spec(kind, rest)
    options = dict(part.partition("=")[::2] for part in found[1].split("&"))
    overlap = options.get("overlap")
    if overlap not in (None, *OVERLAPS) or set(options) - set(OPTIONS):
        raise DatasetError(
            f"'{spec}' has the options '{found[1]}'; expected overlap={'|'.join(OVERLAPS)}, classes=FILE"
        )
    classes = options.get("classes")
    return Spec(kind, rest[: found.start()], cast("Overlap | None", overlap), classes)


def with_options(spec: str, *, overlap: str | None = None, classes: Path | str | None = None) -> str:
    """A specification with options; those that it has already stay, unless others are given."""
    if ":" not in spec or not (overlap or classes):
        return spec
    given = parse_spec(spec)
    rule = cast("Overlap | None", overlap) or given.overlap
    return given._replace(overlap=rule, classes=str(classes) if classes else given.classes).text
