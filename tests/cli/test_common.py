"""What the commands do to their process."""

import os
import subprocess
import sys

import pytest

from atrous.cli import progress
from atrous.cli.common import share_processors
from atrous.cli.progress import describe_pace, progress_bar


@pytest.mark.parametrize(
    ("niceness", "load", "given", "expected"),
    [
        (0, 0.1, None, None),
        (10, 0.1, None, "PASSIVE"),
        (0, 1000.0, None, "PASSIVE"),
        (10, 1000.0, "ACTIVE", "ACTIVE"),
    ],
)
def test_threads_sleep_while_they_wait_where_others_need_the_processors(
    monkeypatch: pytest.MonkeyPatch, niceness: int, load: float, given: str | None, expected: str | None
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if given:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    monkeypatch.setattr(os, "nice", lambda _: niceness)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    share_processors()
    assert os.environ.get("OMP_WAIT_POLICY") == expected
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)


def test_the_command_decides_before_torch_is_imported() -> None:
    code = "import sys, atrous.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_log_gets_lines_with_throughput_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with progress_bar("segmenting") as show:
        show(1, 4)
        monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
        show(2, 4)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("segmenting: 2 of 4, ")
    assert line.endswith(" left")
    assert describe_pace(60, 120, 1920) == "2/s, 15 min left"
    assert describe_pace(1, 0, 10) == ""
