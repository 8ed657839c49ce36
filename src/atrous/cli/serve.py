"""`atrous serve`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atrous.cli.common import find_device, print_note
from atrous.cli.options import Device, Runtime
from atrous.errors import InputError

if TYPE_CHECKING:
    from atrous.serve.served import ServedModel


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model", help="A bundled name, a folder, a hub id, or an exported file; repeat it for several models."
        ),
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; 0.0.0.0 for all of them.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 for a free one.")] = 8000,
    runtime: Runtime = None,
    device: Device = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes, which share the weights (Linux).")] = 1,
    token: Annotated[
        str | None,
        typer.Option("--token", envvar="ATROUS_TOKEN", help="Ask requests for this token; better in ATROUS_TOKEN."),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option("--allow-origin", help="A web site whose pages may call the server: https://example.org"),
    ] = None,
    queue: Annotated[int, typer.Option("--queue", min=1, help="Images that wait; beyond them the answer is 429.")] = 16,
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds after which a request is dropped.")] = 60,
    label_studio: Annotated[
        str | None,
        typer.Option("--label-studio", help="Address of the Label Studio whose images are fetched."),
    ] = None,
    static: Annotated[
        Path | None,
        typer.Option("--static", help="Do not serve: write the page to this folder, with the model for browsers."),
    ] = None,
    onnxruntime_web: Annotated[
        Path | None,
        typer.Option("--onnxruntime-web", help="For --static: the .tgz of `npm pack onnxruntime-web`, or its folder."),
    ] = None,
) -> None:
    """Serve models over HTTP, with a page to try them on: open the address in a browser."""
    if (static is None) != (onnxruntime_web is None):
        raise InputError(
            "--static FOLDER and --onnxruntime-web PACKAGE go together: the page computes with that package"
        )
    # Threads of several images that spin while they wait would take each other's processors; read at torch's import.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        from atrous.serve.server import serve as run
    except ModuleNotFoundError as error:
        raise InputError(f"serving needs {error.name}: pip install 'atrous[serve]'") from error
    from atrous.bundle import DEFAULT
    from atrous.opening import open_model
    from atrous.runtime.exported import ExportedModel
    from atrous.serve.served import ServedModel, names_of
    from atrous.serve.settings import Limits, ServeSettings

    sources = model or [DEFAULT]
    models = []
    for name, source in zip(names_of(sources), sources, strict=True):
        opened = open_model(source, runtime, told=print_note)
        if not isinstance(opened, ExportedModel):
            opened = opened.to(find_device(device))
        models.append(ServedModel(name, source, opened))
    if static is not None:
        assert onnxruntime_web is not None
        _write_static(models, static, onnxruntime_web)
        return
    settings = ServeSettings(
        host=host,
        port=port,
        workers=workers,
        token=token,
        origins=tuple(allow_origin or ()),
        label_studio=label_studio,
        label_studio_token=os.environ.get("LABEL_STUDIO_API_KEY"),
        limits=Limits(waiting=queue, seconds=timeout),
    )
    run(
        models,
        settings,
        lambda address: typer.echo(f"serving {', '.join(served.name for served in models)} on {address}"),
    )


def _write_static(models: list[ServedModel], folder: Path, runtime: Path) -> None:
    from atrous.serve.static import write_static

    if len(models) > 1:
        raise InputError(f"--static writes a page of one model, not of {len(models)}: name one --model")
    size = write_static(models[0], folder, runtime)
    typer.echo(f"{folder}: the page with {models[0].name} ({size:.1f} MB), to be sent by any web server")
