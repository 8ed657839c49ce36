"""Self-contained HTML pages: reports, comparisons, and masks that are probably wrong."""
