"""What can be wrong with a dataset, as sentences: what was found, what was expected, which files, and what mends it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
SHOWN = 10
"""How many files of a finding are listed in text; JSON has all."""


@dataclass(frozen=True)
class Item:
    """A file (or a line, or a class) that a finding is about, and what is special about it; may be empty."""

    name: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}" if self.detail else self.name


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a dataset, or worth knowing.

    Args:
        kind: its name, for example ``missing-mask``.
        severity: ``error``: training refuses, or would learn or judge wrongly; ``warning``: it would work, perhaps not
            as was meant; ``note``: good to know.
        found: what there is.
        expected: what should be there.
        mend: the command or the line that mends it.
        items: everything it is about.
    """

    kind: str
    severity: Severity
    found: str
    expected: str
    mend: str
    items: tuple[Item, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(item.name for item in self.items)

    def sentence(self) -> str:
        """All of it in one line, with the first file."""
        first = f"; first: {self.items[0]}" if len(self.items) > 1 else f": {self.items[0]}" if self.items else ""
        return f"{self.found}{first}. Expected {self.expected}. To mend it: {self.mend}"

    def block(self) -> str:
        """All of it in a few lines, with the first files."""
        lines = [f"{self.severity} {self.kind}: {self.found}"]
        lines += [f"    {item}" for item in self.items[:SHOWN]]
        if len(self.items) > SHOWN:
            lines.append(f"    … and {len(self.items) - SHOWN} more")
        lines += [f"  expected: {self.expected}"] if self.expected else []
        return "\n".join([*lines, f"  mend: {self.mend}"])

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "severity": self.severity,
            "found": self.found,
            "expected": self.expected,
            "mend": self.mend,
            "files": [{"name": item.name, "detail": item.detail} for item in self.items],
        }


def errors_of(findings: Iterable[Finding]) -> list[Finding]:
    """Those that make a dataset unfit for use."""
    return [finding for finding in findings if finding.severity == "error"]


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Findings by severity, those of one severity in the order given."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def number(count: int, one: str, many: str | None = None) -> str:
    """``1 image``, ``2 images``."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def tally(findings: Sequence[Finding]) -> str:
    """``2 errors, 1 warning``; ``no findings``."""
    counts = {severity: sum(f.severity == severity for f in findings) for severity in SEVERITIES}
    return ", ".join(number(count, severity) for severity, count in counts.items() if count) or "no findings"
