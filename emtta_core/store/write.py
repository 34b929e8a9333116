"""Writing records as Parquet files."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from emtta_core.errors import StoreError
from emtta_core.store.place import Place
from emtta_core.store.schema import AudioBytes


def write_rows(place: Place, name: str, rows: Sequence[Any], schema: pa.Schema, *, replace: bool = False) -> None:
    """Write records as one Parquet file.

    Args:
        place: where.
        name: the file.
        rows: the records, of the class from which `schema` comes.
        schema: the columns.
        replace: whether a file that is there may be replaced. Rows of an attempt may not: they are final.

    Raises:
        StoreError: when the file cannot be written, or is there already and may not be replaced.
    """
    content = parquet(pa.Table.from_pylist([_plain(row, schema.names) for row in rows], schema=schema))
    if replace:
        place.write(name, content)
    elif not place.write_new(name, content):
        raise StoreError(
            f"{place.url(name)} is already there and rows of an attempt are final; "
            "does another process write the same run? Wait for it, or choose another run id"
        )


def parquet(table: pa.Table) -> bytes:
    """Return a table as the content of a Parquet file of the store, with a checksum of each of its pages."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return bytes(sink.getvalue())


def _plain(row: Any, names: Sequence[str]) -> dict[str, Any]:
    """Return a record as the dictionary that Arrow takes, a nested record likewise."""
    values = {name: getattr(row, name) for name in names}
    return {name: asdict(value) if isinstance(value, AudioBytes) else value for name, value in values.items()}
