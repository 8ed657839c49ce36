"""`atrous env`."""

from __future__ import annotations

import typer

from atrous.cli.common import check_writable, write_json
from atrous.cli.options import JsonFile


def env(json: JsonFile = None) -> None:
    """Show versions, devices, installed extras and proven runtimes: what a report of a fault should contain."""
    from atrous.environment import environment

    check_writable(json)
    facts = environment()
    for name, fact in facts.items():
        if isinstance(fact, dict):
            fact = "; ".join(_describe(key, value) for key, value in fact.items())
        elif isinstance(fact, list):
            fact = "; ".join(fact) or "none"
        typer.echo(f"{name + ':':21}{fact}")
    write_json(json, facts)


def _describe(name: str, value: str | dict[str, str | None] | None) -> str:
    """A package with its version, or an extra with what is missing of it."""
    if not isinstance(value, dict):
        return f"{name} {value or 'not installed'}"
    missing = [package for package, version in value.items() if version is None]
    if not missing:
        return f"{name} installed"
    return f"{name} without {', '.join(missing)}" if len(missing) < len(value) else f"{name} not installed"
