"""Prediction on a Ray cluster: one model per worker, masks written by the workers, on a shared disk or in a store.

Needs ``pip install 'atrous[ray]'``. A worker that dies is started again, and does again what it had not finished: the
names of results depend on the images alone, and files appear whole.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atrous.data.files.stores import fetch, find_urls, is_url, names_below, put
from atrous.errors import InputError
from atrous.inference.batch import (
    Job,
    Plan,
    Report,
    Result,
    check_supported,
    computing,
    labelling,
    plan_files,
    segment_file,
)
from atrous.inference.output_names import unique_stems
from atrous.inference.predict import predictor_of
from atrous.inference.results import Done, Failed, OutputOptions, Writer
from atrous.inference.side_by_side import FILE_THREADS, Places, Processors
from atrous.runtime.exported import ExportedModel, open_exported

if TYPE_CHECKING:
    from atrous.inference.large import Large
    from atrous.inference.prepare import Precision
    from atrous.inference.test_time import Inference
    from atrous.models.base import SegmentationModel

_RETRIES = 3
"""How often an image is tried again whose worker has died."""


@dataclass(frozen=True)
class Settings:
    """How every worker predicts: arguments of :func:`atrous.predict_files`."""

    outputs: OutputOptions
    output_stride: int | None
    precision: Precision
    inference: Inference | None
    large: Large | None


class Worker:
    """A model in a process of its own, which segments one image after the other; the next one is read meanwhile.

    Args:
        model: a network, or the files of an exported one.
        settings: how it predicts.
        writer: of the results.
        store: the URL of the folder of results, for images in object stores.
        device: to compute on.
        threads: of the processor.
    """

    def __init__(
        self,
        model: SegmentationModel | ExportedFiles,
        settings: Settings,
        writer: Writer,
        store: str,
        device: str,
        threads: int,
    ) -> None:
        import torch

        torch.set_num_threads(threads)
        opened = model.opened() if isinstance(model, ExportedFiles) else model
        predictor = predictor_of(
            opened,
            device=None if isinstance(opened, ExportedModel) else device,
            output_stride=settings.output_stride,
            precision=settings.precision,
        )
        self.images = predictor.images
        self.writer, self.store, self.places = writer, store, Places(Processors(), 1)
        self.label, self.label_raster = labelling(predictor, settings.inference, settings.outputs, settings.large)

    def work(self, job: Job) -> Result:
        """Segment an image, and write its results."""
        if not self.store:
            return segment_file(job, self.writer, self.label, self.label_raster, self.places, self.images)
        image, stem = job
        url = image.url
        with tempfile.TemporaryDirectory() as folder:
            try:
                here = replace(image, path=fetch(url, Path(folder, "in", image.relative)), url="")
            except OSError as error:
                return Failed(url, str(error)), ()
            writer = replace(self.writer, out=Path(folder, "out"))
            result, notes = segment_file((here, stem), writer, self.label, self.label_raster, self.places, self.images)
            if isinstance(result, Failed):
                return replace(result, path=url), notes
            mask = Path(result.mask)
            files = [file for file in writer.out.rglob("*") if file.is_file() and file != mask]
            try:
                for file in (*files, mask):  # the mask last: where it is, the others are
                    put(file, f"{self.store}/{file.relative_to(writer.out).as_posix()}")
            except OSError as error:
                return Failed(url, str(error)), ()
            return Done(url, f"{self.store}/{mask.relative_to(writer.out).as_posix()}", result.fractions), notes


@dataclass(frozen=True)
class ExportedFiles:
    """An exported model, as bytes: workers on other machines do not see its file."""

    files: dict[str, bytes]
    name: str
    runtime: Any

    @classmethod
    def of(cls, model: ExportedModel) -> ExportedFiles:
        """The files of a model: what has its name, with whatever ending."""
        alike = [file for file in model.file.parent.glob(f"{model.file.stem}.*") if file.is_file()]
        return cls({file.name: file.read_bytes() for file in alike}, model.file.name, model.runtime)

    def opened(self) -> ExportedModel:
        """The model, from files in a temporary folder of this worker."""
        folder = Path(tempfile.mkdtemp(prefix="atrous-"))
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        return open_exported(folder / self.name, self.runtime)


def predict_on_ray(
    model: SegmentationModel | ExportedModel,
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    workers: int | None = None,
    outputs: OutputOptions | None = None,
    output_stride: int | None = None,
    precision: Precision = "auto",
    inference: Inference | None = None,
    large: Large | None = None,
    resume: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Segment images as :func:`atrous.predict_files` does, in workers on a Ray cluster.

    The cluster is the one that ``RAY_ADDRESS`` names, or one that is started on this machine for the call. Images and
    results are files that all machines see, or lie in object stores: ``s3://bucket/folder``, ``gs://...`` or any other
    URL of fsspec's, whose package has to be installed on every machine.

    Args:
        model: sent to each worker once.
        inputs: files, folders and patterns; or URLs of them.
        out: folder of the results, a URL where the inputs are.
        workers: processes with a model of their own; by default one for each GPU of the cluster, or each processor.
        outputs: as for :func:`atrous.predict_files`, like the others.
        output_stride: see there.
        precision: see there.
        inference: see there.
        large: see there.
        resume: see there. In an object store, results count as complete where the mask exists.
        progress: see there.

    Raises:
        InputError: as there; or Ray is not installed, or URLs and paths are mixed.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError("--engine ray needs Ray: pip install 'atrous[ray]'") from error
    outputs = outputs or OutputOptions()
    check_supported(model, inference, outputs)
    predictor = predictor_of(model, output_stride=output_stride, precision=precision)
    with computing(predictor, inference, precision, large, outputs) as (made_with, _):
        plan = _plan(inputs, out, outputs, made_with, resume)
    if not plan.jobs:
        return plan.report([], progress)
    started = not ray.is_initialized()
    if started:
        address = os.environ.get("RAY_ADDRESS")
        ray.init(address=address, include_dashboard=None if address else False, log_to_driver=False)
    try:
        settings = Settings(outputs, output_stride, precision, inference, large)
        sent = ExportedFiles.of(model) if isinstance(model, ExportedModel) else model
        store = str(out) if is_url(out) else ""
        arguments = [ray.put(argument) for argument in (sent, settings, plan.writer, store)]  # kept, for restarts
        actors = _actors(ray, workers, len(plan.jobs), arguments)
        return plan.report(_results(ray, actors, plan.jobs), progress)
    finally:
        if started:
            ray.shutdown()


def _plan(inputs: Sequence[str | Path], out: str | Path, outputs: OutputOptions, made_with: str, resume: bool) -> Plan:
    """The jobs of a call, on disk or in a store."""
    urls = [is_url(place) for place in (*inputs, out)]
    if not any(urls):
        return plan_files(
            [Path(place).absolute() for place in inputs], Path(out).absolute(), outputs, made_with, resume
        )
    if not all(urls):
        raise InputError("images and results are both files or both URLs: file:///folder is the URL of a folder")
    begin = time.perf_counter()
    found = find_urls([str(place) for place in inputs])
    stems, notes = unique_stems(found)
    there = names_below(str(out)) if resume else set()
    jobs = tuple(
        (image, stem)
        for image, stem in zip(found, stems, strict=True)
        if not {f"{stem.as_posix()}.png", f"{stem.as_posix()}.tif"} & there
    )
    writer = Writer(Path(), outputs, frozenset(), made_with)
    return Plan(jobs, writer, tuple(notes), len(found) - len(jobs), begin)


def _actors(ray: Any, workers: int | None, most: int, arguments: Sequence[Any]) -> list[Any]:
    """The workers; one that dies is started again."""
    there = ray.cluster_resources()
    gpus, processors = int(there.get("GPU", 0)), max(1, int(there.get("CPU", 1)))
    count = min(workers or gpus or processors, most)
    options = {
        "num_gpus": 1 if gpus else 0,
        "num_cpus": max(1, processors // count) if count <= processors else processors / count,
        "max_restarts": -1,
        "max_task_retries": _RETRIES,
        "max_concurrency": 1 + FILE_THREADS,
    }
    device, threads = "cuda" if gpus else "cpu", max(1, processors // count)
    remote = ray.remote(Worker).options(**options)
    return [remote.remote(*arguments, device, threads) for _ in range(count)]


def _results(ray: Any, actors: Sequence[Any], jobs: Sequence[Job]) -> Iterator[Result]:
    """The result of each job, in order; each worker has the next images at hand."""
    waiting = deque(enumerate(jobs))
    running: dict[Any, tuple[int, Any]] = {}
    finished: dict[int, Result] = {}
    free = deque(actor for _ in range(1 + FILE_THREADS) for actor in actors)
    following = 0
    while following < len(jobs):
        while waiting and free:
            number, job = waiting.popleft()
            actor = free.popleft()
            running[actor.work.remote(job)] = number, actor
        ready, _ = ray.wait(list(running), num_returns=1)
        for task in ready:
            number, actor = running.pop(task)
            free.append(actor)
            try:
                finished[number] = ray.get(task)
            except ray.exceptions.RayError as error:
                reason = f"its worker died {_RETRIES + 1} times ({type(error).__name__}); not enough memory, perhaps"
                finished[number] = Failed(jobs[number][0].place, reason), ()
        while following in finished:
            yield finished.pop(following)
            following += 1
