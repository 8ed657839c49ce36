"""What a value should be, in plain words, for errors about options of models and settings of recipes."""

from __future__ import annotations

import json
from typing import Any

Schema = dict[str, Any]
_NOUNS = {
    "integer": ("an integer", "integers"),
    "number": ("a number", "numbers"),
    "boolean": ("true or false", "true or false each"),
    "string": ("a text", "texts"),
    "array": ("a list", "lists"),
    "object": ("a table", "tables"),
}
"""Of one value and of many."""
_BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
}


def expected(schema: Schema, *, many: bool = False) -> str:
    """What a JSON schema asks for, as pydantic writes it: ``an integer ≥ 1``, ``a list of 2 numbers``.

    Args:
        schema: of numbers, texts, choices of words, lists and tables; null, which stands for what is left out, is not
            told.
        many: in the plural.
    """
    if "anyOf" in schema:
        return ", or ".join(expected(kind, many=many) for kind in schema["anyOf"] if kind.get("type") != "null")
    if "enum" in schema or "const" in schema:
        *first, last = [json.dumps(word) for word in schema.get("enum", [schema.get("const")])]
        return f"{', '.join(first)} or {last}" if first else last
    noun = _NOUNS[schema.get("type", "object")][many]  # a section is a reference to a table
    bounds = [words.format(f"{schema[bound]:.10g}") for bound, words in _BOUNDS.items() if bound in schema]
    return " ".join([noun, *_contents(schema), " and ".join(bounds)]).rstrip()


def _contents(schema: Schema) -> list[str]:
    """What is in a list or a table, where that is told."""
    if "prefixItems" in schema:
        return [f"of {len(schema['prefixItems'])}", expected(schema["prefixItems"][0], many=True)]
    inner = schema.get("items") or schema.get("additionalProperties")
    return ["of", expected(inner, many=True)] if isinstance(inner, dict) else []
