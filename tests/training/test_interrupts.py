"""Ctrl-C is asked once and answered by the loop; a second one, later, ends it at once."""

import os
import signal
import threading

import pytest

import atrous.training.signals as module
from atrous.training.signals import Interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_a_later_one_raises(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(number)
    with Interrupts() as interrupts:
        assert not interrupts.asked
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # a launcher's echo of the same wish
        assert interrupts.asked
        monkeypatch.setattr(module, "SAME_CTRL_C", -1.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_in_another_thread_it_does_nothing() -> None:
    asked: list[bool] = []

    def work() -> None:
        with Interrupts() as interrupts:
            asked.append(interrupts.asked)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert asked == [False]
