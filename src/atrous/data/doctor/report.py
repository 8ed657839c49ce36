"""The report of the doctor, as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atrous.data.doctor.inspect import ImageFacts, MaskFacts, PairFacts
from atrous.data.doctor.list_rules import repair_command
from atrous.data.doctor.pair_rules import complaints, label_counts
from atrous.data.files.mask_form import MaskForm
from atrous.data.files.orientation import Size, shown
from atrous.data.finding_rules import RULES
from atrous.data.findings import Finding, errors_of, tally
from atrous.data.sources.base import Described, Listed
from atrous.data.stats import ClassCounts, add_up


@dataclass(frozen=True)
class Checkup:
    """What was checked, and what is wrong with it.

    Args:
        source: the dataset.
        form: how masks are written, or probably are.
        tried: the splits that were to be checked.
        lists: the pairs of each of these that can be listed, in order.
        facts: of each pair whose files exist.
        findings: the worst first.
    """

    source: Described
    form: MaskForm
    tried: tuple[str, ...]
    lists: Mapping[str, list[Listed]]
    facts: Mapping[Listed, PairFacts]
    findings: tuple[Finding, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether there are no errors."""
        return not errors_of(self.findings)

    def good(self, split: str) -> list[Listed]:
        """The pairs of a split without errors."""
        return [pair for pair in self.lists[split] if pair in self.facts and not self._errors(pair)]

    def _errors(self, pair: Listed) -> bool:
        return any(
            RULES[complaint.kind].severity == "error" for complaint in complaints(pair, self.facts[pair], self.form)
        )

    def counts(self, split: str) -> ClassCounts:
        """Class counts of the good pairs of a split."""
        masks = (self.facts[pair].mask for pair in self.good(split))
        labels = (label_counts(mask, self.form) for mask in masks if isinstance(mask, MaskFacts))
        return add_up([found for found in labels if found is not None], len(self.form.label_set))

    def sizes(self, split: str) -> list[Size]:
        """The upright sizes of the images of the good pairs of a split, by number of pixels."""
        images = (self.facts[pair].image for pair in self.good(split))
        sizes = [image.size for image in images if isinstance(image, ImageFacts)]
        return sorted(sizes, key=lambda size: size[0] * size[1])

    def others(self) -> list[str]:
        """Splits that exist and were not checked."""
        looked_at = {part for split in self.tried for part in split.split("+")}
        return [split for split in self.source.splits() if split not in looked_at]

    def text(self) -> str:
        """The report as text: a table of classes for each split, then the findings."""
        parts = [self._table(split) for split in self.lists]
        if others := self.others():
            parts.append(f"not checked: {', '.join(others)} (--split NAME)")
        parts += [finding.block() for finding in self.findings]
        if self.healthy:
            parts.append(f"healthy: {tally(self.findings)}")
        else:
            command = repair_command(self.source)
            parts.append(
                tally(self.findings) + (f"; to repair a copy, as far as that is safe: {command}" if command else "")
            )
        return "\n\n".join(parts)

    def _table(self, split: str) -> str:
        sizes, counts, names = self.sizes(split), self.counts(split), self.form.label_set.names
        between = f", {shown(sizes[0])} to {shown(sizes[-1])} pixels" if sizes else ""
        lines = [f"{self.source.kind}:{split}: {len(sizes)} of {len(self.lists[split])} pairs are good{between}"]
        total, width = max(int(counts.pixels.sum()) + counts.ignored, 1), max(map(len, names))
        for name, pixels, images in zip(names, counts.pixels, counts.images, strict=True):
            lines.append(f"  {name:{width}}  {100 * pixels / total:6.2f} %  in {images} images")
        return "\n".join([*lines, f"  {'(ignored)':{width}}  {100 * counts.ignored / total:6.2f} %"])

    def to_dict(self) -> dict[str, Any]:
        """The report for JSON, with all files."""
        return {
            "data": self.source.spec,
            "healthy": self.healthy,
            "findings": [finding.to_dict() for finding in self.findings],
            "splits": [self._split(split) for split in self.lists],
            "other_splits": self.others(),
        }

    def _split(self, split: str) -> dict[str, Any]:
        sizes, counts, names = self.sizes(split), self.counts(split), self.form.label_set.names
        return {
            "name": split,
            "listed": len(self.lists[split]),
            "good": len(sizes),
            "smallest": list(sizes[0]) if sizes else None,
            "largest": list(sizes[-1]) if sizes else None,
            "ignored_pixels": counts.ignored,
            "classes": [
                {"name": name, "pixels": int(pixels), "images": int(images)}
                for name, pixels, images in zip(names, counts.pixels, counts.images, strict=True)
            ],
        }
