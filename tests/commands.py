"""The command lines of the documentation, held to the program's own commands and options."""

import shlex
from functools import cache
from typing import Any

import typer.main

from atrous.cli import app


@cache
def program() -> Any:
    return typer.main.get_command(app)


def unknown_words(line: str) -> list[str]:
    """The command or the options of ``atrous …`` (or ``python -m atrous …``) that the program does not have."""
    command = program()
    words = shlex.split(line.split("atrous ", 1)[1], comments=True)
    while hasattr(command, "commands"):
        if not words or words[0] not in command.commands:
            return words[:1]
        command = command.commands[words.pop(0)]
    options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return [word for word in words if word.startswith("--") and word.split("=")[0] not in options]
