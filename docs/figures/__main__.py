"""python -m docs.figures [NAME ...]: draw all figures, or those named."""

from __future__ import annotations

import sys

from docs.figures import attention, deeplab, deeplabv3plus, fcn, grid

FIGURES = {
    "fcn": fcn.draw,
    "deeplab": deeplab.draw,
    "attention": attention.draw,
    "deeplabv3plus": deeplabv3plus.draw,
    "grid": grid.draw,
}


def main() -> None:
    """Draw the figures named on the command line, or all."""
    for name in sys.argv[1:] or FIGURES:
        if name not in FIGURES:
            raise SystemExit(f"there is no figure {name!r}; figures: {', '.join(FIGURES)}")
        path = FIGURES[name]()
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
