"""Metadata: the remaining fields of an utterance in a manifest or a data set, as a JSON object."""

import json
import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from functools import cache as cache_in_memory
from typing import Any

import pyarrow as pa

from emtta_core.names import counted

log = logging.getLogger("emtta.corpora")

MAX_BYTES = 10_000
"""The maximum bytes of an utterance's metadata as JSON."""

_TOO_MUCH = f"an utterance has at most {MAX_BYTES:,} bytes of it, as JSON"


def as_json(fields: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """An utterance's metadata as a JSON object with sorted names, and the names of fields that were left out.

    None, NaN, infinity and empty strings are dropped. A field that would make the object larger than 10,000 bytes is
    left out.
    """
    kept: list[str] = []
    left_out: list[str] = []
    size = 2
    for name, value in sorted(fields.items()):
        entry = _entry(name, value)
        if entry is None or size + len(entry.encode()) + 1 > MAX_BYTES:
            left_out.append(name)
        elif entry:
            kept.append(entry)
            size += len(entry.encode()) + 1
    return f"{{{','.join(kept)}}}", tuple(left_out)


def notes_of(fields: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Notes on the columns that are kept as metadata of utterances, and on those that are left out."""
    kept, left_out = set[str](), Counter[str]()
    for one in fields:
        names = as_json(one)[1] if one else ()
        left_out.update(names)
        kept |= {name for name in one if name not in names}
    notes = [f"columns kept as metadata: {', '.join(sorted(kept))}"] if kept else []
    for name, count in sorted(left_out.items()):
        notes.append(f"the column {name} is left out of the metadata of {counted(count, 'utterance')}: {_TOO_MUCH}")
    return tuple(notes)


def of_row(source: str, fields: Mapping[str, Any]) -> str:
    """The metadata of a data set's row, as in `as_json`; warns once about each column of `source` that is left out."""
    text, left_out = as_json(fields)
    for name in left_out:
        _warn_of(source, name)
    return text


def further_columns(schema: "pa.Schema", read: Iterable[str], *, nested: bool = True) -> tuple[list[str], list[str]]:
    """The columns of a table that are kept as metadata, and those that are not: audio, images and other bytes.

    Args:
        schema: the table's schema.
        read: the columns that are read for other purposes.
        nested: whether lists and structs are kept.
    """
    others = [name for name in schema.names if name not in {*read} and name.strip()]
    kept = [name for name in others if _is_kept(schema.field(name).type, nested)]
    return kept, [name for name in others if name not in kept]


def _is_kept(kind: "pa.DataType", nested: bool) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_nested(kind):
        return nested and all(_is_kept(kind.field(index).type, nested) for index in range(kind.num_fields))
    return not (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )


@cache_in_memory
def _warn_of(source: str, name: str) -> None:
    log.warning("%s: the column %s is left out of the metadata of at least one utterance: %s", source, name, _TOO_MUCH)


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _entry(name: str, value: Any) -> str | None:
    # A field as part of a JSON object: empty if it has no value, None if it is too large or too deep.
    if isinstance(value, str | list | tuple | Mapping) and len(value) > MAX_BYTES:
        return None
    try:
        plain = _plain(value)
    except RecursionError:
        return None
    return "" if plain is None or plain == "" else f"{_dumps(name)}:{_dumps(plain)}"


def _plain(value: Any) -> Any:
    # A value that JSON can represent.
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float | Decimal):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value)
