"""The papers' ablations as studies, and the reports about trained models: ``python -m studies --list``."""
