"""Segments a folder in child processes that are killed (SIGKILL) and resumed: ``killer.py IMAGES OUT KILLS``.

A separate program, since children are forked from a process that has imported everything and computed nothing.
"""

import os
import signal
import sys
import time
from pathlib import Path

import torch

from atrous.inference.batch import predict_files
from atrous.inference.results import OutputOptions
from atrous.models.base import Output
from tests.inference.small import DarkOrLight


class Slow(DarkOrLight):
    def main_output(self, images: torch.Tensor) -> Output:
        time.sleep(0.05)
        return super().main_output(images)


def segment(images: Path, out: Path) -> None:
    report = predict_files(Slow(), [images], out, outputs=OutputOptions(overlays=True), resume=True)
    print(report.kept, len(report.done), len(report.failed), *report.notes, flush=True)


def main() -> None:
    images, out, kills = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    for kill in range(kills):
        if (child := os.fork()) == 0:
            segment(images, out)
            os._exit(3)  # it was to be killed
        while len(list(out.glob("*.png"))) <= 3 * kill:
            assert os.waitpid(child, os.WNOHANG)[0] == 0, "it ended by itself"
            time.sleep(0.001)
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    segment(images, out)


if __name__ == "__main__":
    main()
