"""Findings: what is wrong with a dataset, where, what was expected, and how to fix it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from atrous.data.finding_kinds import SEVERITIES, FindingKind, Severity
from atrous.data.finding_rules import RULES

SHOWN = 10
"""How many files of a finding are listed in text; JSON has all."""


@dataclass(frozen=True)
class Item:
    """A file (or a line, or a class) that a finding is about, with a detail that may be empty."""

    name: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}" if self.detail else self.name


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a dataset, or good to know.

    Args:
        kind: for example ``missing-mask``.
        severity: as in :class:`atrous.data.finding_kinds.Rule`.
        found: what was found.
        expected: what should be there.
        fix: the command or the line that fixes it.
        items: everything it is about.
    """

    kind: FindingKind
    severity: Severity
    found: str
    expected: str
    fix: str
    items: tuple[Item, ...] = ()

    @property
    def files(self) -> tuple[str, ...]:
        return tuple(item.name for item in self.items)

    def sentence(self) -> str:
        """The finding in one line, with the first file."""
        first = f"; first: {self.items[0]}" if len(self.items) > 1 else f": {self.items[0]}" if self.items else ""
        return f"{self.found}{first}. Expected {self.expected}. To fix it: {self.fix}"

    def block(self) -> str:
        """The finding in a few lines, with the first files."""
        lines = [f"{self.severity} {self.kind}: {self.found}"]
        lines += [f"    {item}" for item in self.items[:SHOWN]]
        if len(self.items) > SHOWN:
            lines.append(f"    … and {len(self.items) - SHOWN} more")
        lines += [f"  expected: {self.expected}"] if self.expected else []
        return "\n".join([*lines, f"  fix: {self.fix}"])

    def to_dict(self) -> dict[str, Any]:
        """The finding for JSON, with all files."""
        return {
            "kind": str(self.kind),
            "severity": self.severity,
            "found": self.found,
            "expected": self.expected,
            "fix": self.fix,
            "files": [{"name": item.name, "detail": item.detail} for item in self.items],
        }


def make_finding(
    kind: FindingKind, items: Iterable[Item], *, fix: str | None = None, command: str = "", **fields: object
) -> Finding:
    """Build a finding from the table of kinds.

    Args:
        kind: the row.
        items: what it is about.
        fix: instead of the table's.
        command: that writes a repaired copy; if empty, the copy is not mentioned.
        fields: values of the fields in the table's words.
    """
    rule, items = RULES[kind], tuple(items)
    found = number(len(items), rule.one, rule.many).format(**fields)
    if fix is None:
        fix = with_copy(rule.fix.format(**fields), kind, command)
    return Finding(rule.reported_as or kind, rule.severity, found, rule.expected.format(**fields), fix, items)


def with_copy(fix: str, kind: FindingKind, command: str) -> str:
    """A fix, and what the command that writes a repaired copy does about this kind."""
    return f"{fix}; {command} {RULES[kind].copy}" if command and RULES[kind].copy else fix


def errors_of(findings: Iterable[Finding]) -> list[Finding]:
    """The findings that make a dataset unusable."""
    return [finding for finding in findings if finding.severity == "error"]


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Findings by severity; those of one severity keep their order."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def number(count: int, one: str, many: str | None = None) -> str:
    """``1 image``, ``2 images``."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def tally(findings: Sequence[Finding]) -> str:
    """``2 errors, 1 warning``; ``no findings``."""
    counts = {severity: sum(f.severity == severity for f in findings) for severity in SEVERITIES}
    return ", ".join(number(count, severity) for severity, count in counts.items() if count) or "no findings"
