"""`atrous models`."""

from __future__ import annotations

from pathlib import Path

import typer


def models() -> None:
    """List the architectures, the recipes, and the bundled models with their cards."""
    from json import loads
    from tomllib import loads as loads_toml

    from atrous.bundle import BUNDLE, DEFAULT, bundled
    from atrous.models import ARCHITECTURES
    from atrous.training.recipe_file import SHIPPED, shipped

    typer.echo(
        f"architectures (on any timm backbone; as published, FCNs on vgg16, alexnet, caffenet and "
        f"googlenet, DeepLab v1 and v2 (deeplab_*) on vgg16 and resnet101): {', '.join(sorted(ARCHITECTURES))}"
    )
    typer.echo("recipes:")
    for recipe in shipped():
        table = loads_toml(Path(SHIPPED or "", f"{recipe}.toml").read_text(encoding="utf-8"))
        typer.echo(f"  {recipe}: {table.get('description', '')}")
    names = bundled()
    typer.echo("bundled models:" if names else "bundled models: none")
    for name in names:
        folder = BUNDLE / name
        card = loads((folder / "config.json").read_text(encoding="utf-8"))
        default = " (default)" if name == DEFAULT else ""
        size = (folder / "model.safetensors").stat().st_size / 1e6
        typer.echo(f"\n{name}{default}: {card['architecture']} on {card['backbone']}, {size:.1f} MB")
        typer.echo(f"  classes: {', '.join(card['label_set']['names'])}")
        for metrics in (card.get("metrics", {}), *card.get("further_metrics", ())):
            for key, label in (("pixel_accuracy", "pixel accuracy"), ("mean_iou", "mean IoU")):
                if key in metrics:
                    typer.echo(f"  {label} on {metrics['data']}: {100 * metrics[key]:.2f} %")
        typer.echo(f"  trained on {card.get('training_data', 'data that its card does not name')}")
        typer.echo(f"  card: {folder / 'README.md'}")
