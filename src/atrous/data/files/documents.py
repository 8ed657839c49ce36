"""Reading JSON, XML, YAML and CSV of annotation tools: once a process while a file does not change, with its errors."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

from atrous.data.files.limits import read_file
from atrous.errors import DatasetError, InputError

T = TypeVar("T")


def read_json(file: Path) -> Any:
    """The content of a JSON file.

    Raises:
        InputError: not JSON.
        OSError: missing, or not readable.
    """
    try:
        return json.loads(read_file(file).decode("utf-8-sig"))
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise InputError(f"not JSON ({error}); export it again") from error


def read_xml(file: Path) -> ElementTree.Element:
    """The root of an XML file. Entities, which can grow without bound, are refused.

    Raises:
        InputError: not XML.
        OSError: missing, or not readable.
    """
    return parse_xml(read_file(file))


def parse_xml(data: bytes) -> ElementTree.Element:
    """The root of an XML document. Entities, which can grow without bound, are refused.

    Raises:
        InputError: not XML.
    """
    if b"<!ENTITY" in data:
        raise InputError("XML with entities of its own, which no annotation tool writes; export it again")
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise InputError(f"not XML ({error}); export it again") from error


def read_yaml(file: Path) -> Any:
    """The content of a YAML file.

    Raises:
        InputError: not YAML.
        OSError: missing, or not readable.
    """
    import yaml

    try:
        return yaml.safe_load(read_file(file).decode("utf-8-sig"))
    except (UnicodeDecodeError, RecursionError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"not YAML ({' '.join(str(error).split())})") from error


@contextmanager
def form_of(expected: str) -> Iterator[None]:
    """Turn what Python raises about missing or wrong parts of a document into an error that says what was expected.

    Raises:
        InputError: a key is missing, or a value has another type or form.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            reason = str(error)
        elif isinstance(error, KeyError):
            reason = f"no {error}"
        else:
            reason = f"a value of another form than expected ({error})"
        raise InputError(f"{reason}; expected {expected}") from error


def parsed(file: Path, parse: Callable[[Path], T]) -> T:
    """What ``parse`` makes of a file, once a process while the file does not change.

    Raises:
        DatasetError: whatever InputError ``parse`` raises, behind the name of the file; or it is not readable.
    """
    try:
        status = file.stat()
        result: T = _parsed(parse, file, status.st_mtime_ns, status.st_size)
    except InputError as error:
        raise DatasetError(f"{file}: {error}") from error
    except OSError as error:
        raise DatasetError(f"{file}: {error.strerror}") from error
    return result


@functools.lru_cache(maxsize=64)
def _parsed(parse: Callable[[Path], T], file: Path, modified: int, size: int) -> T:  # noqa: ARG001 - part of the key
    return parse(file)
