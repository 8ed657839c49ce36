"""Errors that a user can cause. The command line prints their message; every other exception keeps its traceback."""

from __future__ import annotations


class AtrousError(Exception):
    """Root of every error that a user can cause. The message says what was found, what was expected and what to do.

    Example:
        >>> import atrous
        >>> try:
        ...     atrous.load("no-such-model")
        ... except atrous.AtrousError as error:
        ...     print(type(error).__name__)
        CheckpointError
    """


class InputError(AtrousError, ValueError):
    """A value, a shape, a file or a combination of options that can't be used."""


class InputTypeError(AtrousError, TypeError):
    """An argument of the wrong type, or an unknown option."""


class DatasetError(InputError):
    """A dataset that can't be read as it is; the message names the files and the remedy."""


class OutputExistsError(AtrousError, FileExistsError):
    """Something is in the place of a result, and would be lost."""


def kind_of(value: object) -> str:
    """The type of a value with its article, for messages: ``a list``, ``an int``, ``an ndarray``."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIO' or name.startswith('nd') else 'a'} {name}"
