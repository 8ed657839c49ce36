"""The mask doctor: everything that is wrong with a dataset, in one look, with the line that mends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from atrous.data.datasets import DatasetError, open_dataset

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    Args:
        kind: its name, for example ``missing-mask``.
        severity: ``error``: training refuses or would learn something wrong; ``warning``: it would do, perhaps not what
            was meant; ``note``: good to know.
        found: what there is.
        expected: what should be there.
        mend: the command or the line that mends it.
        files: all files it is about.
    """

    kind: str
    severity: Severity
    found: str
    expected: str
    mend: str
    files: tuple[str, ...] = ()


def quick_check(spec: str, splits: Sequence[str]) -> list[Finding]:
    """What lists, headers and a small sample of masks tell, within seconds; for everything, see :func:`check`."""
    findings = []
    for split in splits:
        try:
            open_dataset(spec, split)
        except ValueError as error:
            findings.append(Finding("unusable", "error", str(error), "", ""))
    return findings


def require_healthy(spec: str, splits: Sequence[str]) -> list[Finding]:
    """Refuse a dataset that :func:`quick_check` finds errors in, naming all of them.

    Args:
        spec: ``voc:PATH``, ``camvid:PATH`` or ``folder:PATH``.
        splits: what will be read of it, ``["train", "val"]``; ``train+val`` is one split.

    Returns:
        What is no error: warnings and notes.

    Raises:
        DatasetError: with every error, in the words of ``atrous data check``.
    """
    findings = quick_check(spec, splits)
    if errors := [finding for finding in findings if finding.severity == "error"]:
        raise DatasetError("\n".join(finding.found for finding in errors))
    return findings
