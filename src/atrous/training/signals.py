"""Ctrl-C and SIGTERM, handled at the next consistent point of the training loop."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType

REPEAT_SECONDS = 2.0
"""Signals within this time count as one: a launcher forwards what the terminal has already sent."""


class StopSignals:
    """Context in which the first Ctrl-C or SIGTERM sets :attr:`received`; a later one raises KeyboardInterrupt.

    Only the main thread receives signals; in any other this does nothing.
    """

    def __init__(self) -> None:
        self.received = False
        self._since = 0.0
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before = {}

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.received and now - self._since > REPEAT_SECONDS:
            raise KeyboardInterrupt
        self.received, self._since = True, now
