"""The first Ctrl-C is left to the training loop; a second one, later, raises at once."""

import os
import signal
import threading

import pytest

import atrous.training.signals as module
from atrous.training.signals import StopSignals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_noted_and_a_later_one_raises(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(number)
    with StopSignals() as signals:
        assert not signals.received
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)  # forwarded once more by a launcher
        assert signals.received
        monkeypatch.setattr(module, "REPEAT_SECONDS", -1.0)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before


def test_in_another_thread_it_does_nothing() -> None:
    received: list[bool] = []

    def work() -> None:
        with StopSignals() as signals:
            received.append(signals.received)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert received == [False]
