"""Ctrl-C and SIGTERM as a question that a loop answers when it has something whole in its hands."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType

SAME_CTRL_C = 2.0
"""Seconds within which further signals are the same wish: a launcher hands on what the terminal has sent already."""


class Interrupts:
    """Within this context the first signal sets :attr:`asked`; another one, later, raises KeyboardInterrupt at once.

    Only the main thread gets signals; in any other this does nothing.
    """

    def __init__(self) -> None:
        self.asked = False
        self._since = 0.0
        self._before: dict[int, object] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before = {}

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.asked and now - self._since > SAME_CTRL_C:
            raise KeyboardInterrupt
        self.asked, self._since = True, now
