"""Workers of a Ray cluster: results are those of the folder path, in files and in stores; a killed worker loses and
doubles nothing.
"""

import os
import signal
import sys
import time
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from atrous.errors import InputError
from atrous.inference.batch import Report, predict_files
from atrous.inference.results import Failed, OutputOptions
from atrous.models.base import Output
from tests.inference.small import DarkOrLight, image, tree

fsspec = pytest.importorskip("fsspec", reason="needs the extra ray")

from atrous.inference.ray_engine import Settings, Worker, _plan, predict_on_ray  # noqa: E402

OUTPUTS = OutputOptions(json=True)


class Slow(DarkOrLight):
    """Takes its time, and says in which process."""

    def __init__(self, notes: Path) -> None:
        super().__init__()
        self.notes = notes

    def main_output(self, images: Tensor) -> Output:
        (self.notes / str(os.getpid())).touch()
        time.sleep(0.3)
        return super().main_output(images)


def masks(folder: Path) -> dict[str, bytes]:
    return {path.name: np.asarray(Image.open(path)).tobytes() for path in folder.glob("*.png")}


def test_stores_are_read_and_written_in_a_worker(tmp_path: Path) -> None:
    store = fsspec.filesystem("memory")
    try:
        for name in ("a.png", "sub/b.jpg", "sub/broken.jpg"):
            image(tmp_path / name, 0)
            store.pipe_file(f"/in/{name}", (tmp_path / name).read_bytes()[: 30 if "broken" in name else None])
        settings = Settings(OUTPUTS, None, "float32", None, None)
        plan = _plan(["memory://in"], "memory://out", OUTPUTS, "made", resume=False)
        worker = Worker(DarkOrLight(), settings, plan.writer, "memory://out", "cpu", 1)
        results = [worker.work(job)[0] for job in plan.jobs]
        assert [Path(str(result.path)).name for result in results] == ["a.png", "b.jpg", "broken.jpg"]
        assert [isinstance(result, Failed) for result in results] == [False, False, True]
        assert sorted(store.find("/out")) == ["/out/a.json", "/out/a.png", "/out/sub/b.json", "/out/sub/b.png"]
        again = _plan(["memory://in"], "memory://out", OUTPUTS, "made", resume=True)
        assert [str(job[1]) for job in again.jobs] == ["sub/broken"]
        assert again.kept == 2
        patterns = _plan(["memory://in/*/*.jpg", "memory://in/a.png"], "memory://out", OUTPUTS, "", resume=False)
        assert [str(job[1]) for job in patterns.jobs] == ["sub/b", "sub/broken", "a"]
    finally:
        store.rm("/in", recursive=True)
        if store.exists("/out"):
            store.rm("/out", recursive=True)


def test_what_is_not_there_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="memory://nothing: "):
        _plan(["memory://nothing"], "memory://out", OUTPUTS, "", resume=False)
    with pytest.raises(InputError, match="both files or both URLs"):
        _plan(["memory://in"], tmp_path, OUTPUTS, "", resume=False)
    with pytest.raises(InputError, match="this kind of store can't be opened"):
        _plan(["nosuch://in"], "nosuch://out", OUTPUTS, "", resume=False)
    job = _plan([str(image(tmp_path / "a.png"))], tmp_path / "out", OUTPUTS, "", resume=False).jobs[0]
    assert job[1] == Path("a")


@pytest.mark.slow
def test_a_killed_worker_loses_and_doubles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="needs the extra ray")
    for number in range(16):
        image(tmp_path / f"in/{number:02}.png", 40 * (number % 5))
    notes = tmp_path / "notes"
    notes.mkdir()
    predict_files(DarkOrLight(), [tmp_path / "in"], tmp_path / "expected", outputs=OUTPUTS)
    killed: list[int] = []

    def kill() -> None:
        while not list(tmp_path.glob("out/*.png")):
            time.sleep(0.05)
        killed.append(int(next(notes.iterdir()).name))
        os.kill(killed[0], signal.SIGKILL)

    killer = Thread(target=kill, daemon=True)
    killer.start()
    monkeypatch.setenv("RAY_worker_niceness", "0")  # on a busy machine
    path = os.pathsep.join(sys.path)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": path}})
    try:
        report: Report = predict_on_ray(Slow(notes), [tmp_path / "in"], tmp_path / "out", workers=2, outputs=OUTPUTS)
    finally:
        ray.shutdown()
    assert killed
    assert len(list(notes.iterdir())) == 3  # a third process took the killed one's place
    assert (len(report.done), report.failed) == (16, ())
    assert [Path(done.path).name for done in report.done] == [f"{number:02}.png" for number in range(16)]
    assert tree(tmp_path / "out") == tree(tmp_path / "expected")
    assert masks(tmp_path / "out") == masks(tmp_path / "expected")
