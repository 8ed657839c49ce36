"""pydensecrf's interface over our dense CRF: ``import atrous.compat.pydensecrf as pydensecrf``.

Results are pydensecrf's, to float32 rounding, its classes and functions take the same arguments in the same order, and
the work is done by :mod:`atrous.crf`, in as many threads as torch uses. docs/crf.md lists what differs.
"""

from atrous.compat.pydensecrf import densecrf, utils

__all__ = ["densecrf", "utils"]
