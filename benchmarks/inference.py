"""From an image in memory to its labels, beside other libraries: ``python -m benchmarks.inference [PART...]``.

The parts are ``small``, ``resnet101``, ``stride8``, ``large``, ``runtimes``, ``others`` and ``stages``; all by default.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping

import numpy as np

from atrous.runtime.engines import RUNTIMES, is_installed
from benchmarks._compare import FOLDER, HEADER, Comparison
from benchmarks._labellers import CONTENDERS, Case, preprocessed
from benchmarks._processes import answer, race
from studies.results import Result, Section, command_line, origin_of

SEED, ROUNDS = 0, 3
MOBILE, LITE = "mobilenetv2_100", "tf_efficientnet_lite0"
SMALL = (512, 512)
PARTS: Mapping[str, tuple[Case, ...]] = {
    "small": (Case(MOBILE, SMALL, 2.5), Case(LITE, SMALL, 2.5)),
    "resnet101": (Case("resnet101", SMALL, 2),),
    "stride8": (Case(LITE, SMALL, 3, output_stride=8),),
    "large": (Case(MOBILE, (1024, 2048), 3), Case(LITE, (1024, 2048), 3)),
    "runtimes": (Case(MOBILE, SMALL, 4), Case(LITE, SMALL, 4)),
    "others": (
        Case("resnet50", SMALL, None, output_stride=8, peer="torchvision"),
        Case(MOBILE, SMALL, None, peer="transformers"),
    ),
}
HEADINGS = {
    "small": "Small networks, 512×512, core dependencies only",
    "resnet101": "ResNet-101, 512×512",
    "stride8": "Output stride 8, 512×512",
    "large": "1024×2048",
    "runtimes": "With the extra `export`: ONNX Runtime and OpenVINO",
    "others": "torchvision and transformers",
    "stages": "Where the time goes, before and after",
}
PEERS = {
    "smp": "segmentation-models-pytorch",
    "smp_keeping": "the same, freed memory kept",
    "torchvision": "torchvision",
    "transformers": "transformers",
}
NOTES = (
    "A uint8 image in memory becomes labels of its size; float32, random weights, the same architecture on both sides. "
    "Ours is `Predictor.labels` in the default precision (with `[export]`: a runtime, whose labels were seen to be "
    "those of torch first); peers are called as their documentation says.",
    "Each library runs in a process of its own, in turns. Ours keeps up to 256 MB of freed memory (glibc's `mallopt`: "
    "docs/inference.md, Memory); the second row of each comparison with smp gives its process the same setting.",
    f"Medians of {ROUNDS} rounds on a machine that other programs used too: ratios count, and below each table "
    "those of processor time, which other programs disturb less.",
)
STAGES = ("preprocess", "network", "upsample")
BARS = {"smp": "segmentation-models-pytorch", "float32": "ours, layer by layer (float32)", "auto": "ours (auto)"}


def measure(name: str, part: str) -> None:
    """A contender: wall and processor seconds of each case, whenever it is asked."""
    import torch

    torch.manual_seed(SEED)
    images = [np.random.default_rng(SEED).integers(0, 256, (*case.size, 3), np.uint8) for case in PARTS[part]]
    work = []
    for case, image in zip(PARTS[part], images, strict=True):
        label = CONTENDERS[case.peer if name == "peer" else name](case)
        label(image)
        work.append((label, image))

    def seconds() -> list[float]:
        times = []
        for label, image in work:
            begin, processor = time.perf_counter(), time.process_time()
            label(image)
            times += [time.perf_counter() - begin, time.process_time() - processor]
        return times

    answer(seconds)


def compared(part: str) -> Section:
    """The rows of one part."""
    cases = PARTS[part]
    smp = cases[0].peer == "smp"
    own = ["onnxruntime", "openvino"] if part == "runtimes" else ["ours"]
    for case in cases if part == "runtimes" else ():
        CONTENDERS[own[0]](case)  # it is exported into the cache, where both find it
    peers = ["peer", "smp_keeping"] if smp else ["peer"]
    found = race("inference", {name: (name, part) for name in (*own, *peers)}, ROUNDS)
    rows, shares = [], []
    for number, case in enumerate(cases):
        wall = {name: [times[2 * number] for times in rounds] for name, rounds in found.items()}
        processor = {name: min(times[2 * number + 1] for times in rounds) for name, rounds in found.items()}
        for mine in own:
            work = f"{case}, {mine}" if len(own) > 1 else str(case)
            for name in peers:
                peer = PEERS[case.peer if name == "peer" else name]
                rows.append(Comparison(work, peer, wall[mine], wall[name], target=case.target))
                shares.append(f"{processor[name] / processor[mine]:.1f}×")
    table = [HEADER, *(row.row() for row in rows)]
    below = f"Ratios of processor time, row by row, best of each: {', '.join(shares)}."
    facts = [row.facts() for row in rows]
    return Section(HEADINGS[part], rows=table, below=below, facts=facts, origin=_origin(smp))


def measure_stages(contender: str) -> None:
    """A contender of the bars: seconds of each stage."""
    import torch

    torch.manual_seed(SEED)
    case, image = PARTS["small"][0], np.random.default_rng(SEED).integers(0, 256, (*SMALL, 3), np.uint8)
    stages = _smp_stages(case, image) if contender == "smp" else _our_stages(case, image, contender)

    def seconds() -> list[float]:
        times = []
        for stage in stages:
            begin = time.perf_counter()
            stage()
            times.append(time.perf_counter() - begin)
        return times

    with torch.inference_mode():
        seconds()  # the first run prepares what the others use
        answer(seconds)


def _our_stages(case: Case, image: np.ndarray, precision: str) -> list[Callable[[], object]]:
    import torch

    import atrous
    from atrous.inference.prepare import PreparedModel
    from atrous.ops.labelmap.op import logits_to_labels

    network = PreparedModel(atrous.create_model(**case.network), precision=precision)  # type: ignore[arg-type]
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    with network.running():
        shown = network.preprocess(pixels).contiguous(memory_format=torch.channels_last)
        output = network.main_output(shown)
    return [
        lambda: network.preprocess(pixels).contiguous(memory_format=torch.channels_last),
        lambda: network.main_output(shown),
        lambda: logits_to_labels(output.logits, output.grid, SMALL),
    ]


def _smp_stages(case: Case, image: np.ndarray) -> list[Callable[[], object]]:
    import segmentation_models_pytorch
    import torch

    model = segmentation_models_pytorch.DeepLabV3Plus(
        f"tu-{case.backbone}", encoder_weights=None, classes=21, decoder_atrous_rates=(12, 24, 36)
    ).eval()
    x = torch.from_numpy(preprocessed(image))
    enlarge, model.segmentation_head[1] = model.segmentation_head[1], torch.nn.Identity()
    with torch.inference_mode():
        logits = model(x)
    return [lambda: preprocessed(image), lambda: model(x), lambda: enlarge(logits).argmax(1)]


def staged() -> Section:
    """The bars: the stages of an image beside the peer's, as a picture and a table."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    found = race("inference", {name: ("stages", name) for name in BARS}, ROUNDS)
    medians = {name: [statistics.median(times) for times in zip(*found[name], strict=True)] for name in BARS}
    figure, axes = plt.subplots(figsize=(8, 2.2), layout="constrained")
    for number, stage in enumerate(STAGES):
        left = [1e3 * sum(medians[name][:number]) for name in BARS]
        axes.barh(list(BARS.values()), [1e3 * medians[name][number] for name in BARS], left=left, label=stage)
    axes.invert_yaxis()
    axes.set_xlabel(f"milliseconds from image to labels: {PARTS['small'][0]}")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(FOLDER / "inference.png", dpi=120)
    rows = [(BARS[name], *(f"{1e3 * seconds:.3g} ms" for seconds in medians[name])) for name in BARS]
    note = "Upsample is from the network's logits to labels of the image's size."
    return Section(
        HEADINGS["stages"], "![bars](inference.png)", [("", *STAGES), *rows], note, facts=found, origin=_origin(True)
    )


def _origin(smp: bool) -> dict[str, object]:
    peers = ["segmentation-models-pytorch"] if smp else ["transformers"]
    peers += [name for name in RUNTIMES if is_installed(name)]
    return origin_of(command_line("benchmarks.inference"), seed=SEED, peers=peers)


def main(parts: list[str]) -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # or waiting threads spin where others need the processors
    for part in parts:
        section = staged() if part == "stages" else compared(part)
        print(section.markdown(), flush=True)
        Result("Inference", "python -m benchmarks.inference", NOTES, {part: section}).write(FOLDER / "inference")


if __name__ == "__main__":
    if sys.argv[1:2] == ["stages"] and sys.argv[2:] and sys.argv[2] in BARS:
        measure_stages(sys.argv[2])
    elif sys.argv[1:2] and (sys.argv[1] in CONTENDERS or sys.argv[1] == "peer"):
        measure(*sys.argv[1:3])
    else:
        main(sys.argv[1:] or list(HEADINGS))
