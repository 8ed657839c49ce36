"""`atrous bench`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from atrous.cli.common import check_writable, find_device, print_note, write_json
from atrous.cli.options import Device, JsonFile, Model, OutputStride
from atrous.errors import InputError

if TYPE_CHECKING:
    from atrous.bench.machine import Machine
    from atrous.bench.run import Bench, Setting
    from atrous.bench.stages import Split


def bench(
    model: Model,
    size: Annotated[str, typer.Option("--size", help="Height and width of the images: 512x512.")] = "512x512",
    json: JsonFile = None,
    device: Device = "cpu",
    output_stride: OutputStride = None,
    calibrate: Annotated[
        str | None,
        typer.Option("--calibrate", help="Measure int8 too, with ranges of this dataset: folder:PATH, voc:PATH, ..."),
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Split of that dataset.")] = "val",
) -> None:
    """Measure a model on this machine: each runtime and precision, where the time goes, and the fastest proven one."""
    from atrous.bench.run import bench
    from atrous.data.opening import open_dataset

    check_writable(json)
    found = bench(
        model,
        size=_parse_size(size),
        device=find_device(device),
        output_stride=output_stride,
        calibrate=open_dataset(calibrate, split) if calibrate else None,
        tell=print_note,
    )
    typer.echo(f"{model}, images of {found.size[0]}×{found.size[1]}\n")
    _print_settings(found)
    for note in found.notes:
        print_note(note)
    if found.split:
        _print_split(found.split, found.machine)
    write_json(json, found.to_dict())


def _parse_size(text: str) -> tuple[int, int]:
    try:
        height, width = (int(part) for part in text.lower().split("x"))
    except ValueError:
        raise InputError(f"--size is height and width in pixels, such as 512x512, not '{text}'") from None
    return height, width


def _print_settings(found: Bench) -> None:
    typer.echo(f"{'runtime':12}{'precision':12}{'latency':>10}{'images/s':>10}{'start':>8}{'memory':>9}  equal labels")
    for setting in found.settings:
        typer.echo(f"{setting.runtime:12}{setting.precision:12}{_describe(setting)}")
    if found.fastest:
        typer.echo(f"\nfastest proven setting: {found.fastest.runtime} {found.fastest.precision}")
    else:
        typer.echo("\nno setting is proven on this machine")


def _describe(setting: Setting) -> str:
    cost = setting.measured
    if cost is None:
        return setting.failure
    lost = "" if setting.lost is None else f", {setting.lost:.2f} points of mean IoU lost"
    return (
        f"{1000 * cost.latency:7.0f} ms{cost.throughput:10.2f}{cost.start:6.1f} s{cost.memory / 1e6:6.0f} MB  "
        f"{setting.agreement:.2%}{lost}{'' if setting.proven else ': not proven'}"
    )


def _print_split(split: Split, machine: Machine) -> None:
    from atrous.bench.run import describe_bottleneck, network_shares

    stages = ", ".join(f"{name} {1000 * seconds:.3g} ms" for name, seconds in split.seconds.items())
    matrix, memory = network_shares(split, machine)
    typer.echo(f"one image in torch: {stages} (the CRF only with --crf)")
    typer.echo(
        f"network: {split.multiply_adds / 1e9:.3g} G multiply-adds in {split.layers} layers, {matrix:.0%} of the "
        f"matrix rate ({machine.multiply_adds / 1e9:.3g} G/s, float32); {split.bytes / 1e6:.3g} MB moved at least, "
        f"{memory:.0%} of the memory bandwidth ({machine.bytes / 1e9:.3g} GB/s)"
    )
    typer.echo(f"bottleneck: {describe_bottleneck(split, machine)}")
