"""One split of a data set on the hub: its Parquet files, their row counts, and the rows."""

import json
import logging
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache as cache_in_memory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.utils import glob_translate

from emtta_core import cache
from emtta_core.errors import CorpusError, EmttaError, UsageError
from emtta_core.hub import MAIN, Repository, endpoint

log = logging.getLogger("emtta.corpora")

CONVERTED = "refs/convert/parquet"
"""The branch in which the hub keeps its Parquet conversions of other data sets."""

_BATCH = 16
"""Rows in memory at a time."""

_STREAMED_SHARE = 0.5
"""If the required row groups have less than this share of the rows, they are read over the network."""


@dataclass(frozen=True, slots=True)
class HubSplit:
    """A split of a data set.

    Its methods raise `CorpusError` if the data set is not available, and `UsageError`, listing what exists, if it has
    no such revision, configuration or split.
    """

    repository: Repository  # the data set
    config: str  # the configuration, often a language
    split: str  # its name on the hub

    def __str__(self) -> str:
        return f"{self.repository.name}, {self.config}, {self.split}"

    def pinned(self) -> "HubSplit":
        """The split at the commit that its revision currently refers to.

        If the branch `main` has no Parquet of it, that is the commit of the hub's own conversion.
        """
        pinned = replace(self, repository=self.repository.pinned())
        if self.repository.revision == MAIN and not _paths(pinned):
            try:
                converted = replace(self, repository=replace(self.repository, revision=CONVERTED).pinned())
            except UsageError:  # there is no such branch
                converted = pinned
            pinned = converted if _paths(converted) else pinned
        pinned.paths()
        return pinned

    def paths(self) -> list[str]:
        """The Parquet files of a pinned split, in order."""
        paths = _paths(self)
        if not paths:
            raise _no_parquet(self)
        return paths

    @property
    def key(self) -> str:
        """The cache key of a pinned split."""
        return f"{endpoint()}/{self.repository.name}@{self.repository.revision}/{self.config}/{self.split}"

    def row_groups(self) -> list[list[int]]:
        """The row count of each row group of each file of a pinned split, from the footers; cached."""
        cached = cache.load("row-groups", self.key)
        if cached is None:
            files = []
            for path in self.paths():
                with _open(self, path) as file:
                    found = file.metadata
                    files.append([found.row_group(group).num_rows for group in range(found.num_row_groups)])
            cached = {"files": files}
            cache.save("row-groups", self.key, cached)
        return [[int(rows) for rows in groups] for groups in cached["files"]]

    def count(self) -> int:
        """The number of rows of a pinned split."""
        return sum(map(sum, self.row_groups()))

    def is_fetched(self) -> bool:
        """Whether all files of a pinned split are on this machine."""
        return all(self.repository.cached(path) is not None for path in self.paths())

    def is_streamed(self, indices: Set[int] | None) -> bool:
        """Whether the rows at these indices are in so few row groups that they are read over the network."""
        if indices is None:
            return False
        read = sum(group.rows for groups in _groups_of(self, indices) for group in groups)
        return read < _STREAMED_SHARE * self.count()

    def rows(
        self,
        columns: Mapping[str, Sequence[str]],
        indices: Set[int] | None,
        required: Collection[str],
        check: Callable[["pa.Schema"], None],
        further: Callable[["pa.Schema"], Mapping[str, str]] = lambda _schema: {},
    ) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Yield the rows of a pinned split in order: the requested columns of each, and its further columns.

        If many rows are needed, the files are fetched first, once for all domains; a few rows are read over the
        network, and only the row groups that contain them.

        Args:
            columns: the requested columns, each with its possible names, the most likely first.
            indices: which rows, from 0; None for all.
            required: which of the columns must exist.
            check: refuses a file with unexpected columns.
            further: returns the further columns to read from a file, by the names used here; a class of
                `datasets.ClassLabel` is replaced by its name.

        Raises:
            CorpusError: there is too little disk space, or a required column is missing.
            UsageError: a column has the wrong type, or `check` raised it.
        """
        paths = self.paths()
        if not self.is_streamed(indices):
            self.repository.fetch(paths)
        for path, groups in zip(paths, _groups_of(self, indices), strict=True):
            if not groups:
                continue
            with _open(self, path) as file:
                names = _chosen(self, columns, required, file.schema_arrow)
                refuse_types(str(self), file.schema_arrow, names)
                check(file.schema_arrow)
                more, labels = further(file.schema_arrow), class_names(file.schema_arrow)
                read = sorted({*names.values(), *more.values()})
                for group in groups:
                    index = group.first
                    for batch in file.iter_batches(_BATCH, [group.number], read):
                        kept = [row for row in range(len(batch)) if indices is None or index + row in indices]
                        for row in batch.take(kept).to_pylist():
                            others = {key: in_class(row[name], labels.get(name)) for key, name in more.items()}
                            yield {role: row[name] for role, name in names.items()}, others
                        index += len(batch)

    def names(self, columns: Mapping[str, Sequence[str]], required: Collection[str]) -> Iterator[dict[str, Any]]:
        """Yield the names in the rows of a pinned split, in order; of the audio, only the file name.

        If a file is not fetched, only these columns are read over the network.

        Args:
            columns: as in `rows`; the audio must be among them, as `audio`.
            required: which of them must exist.

        Raises:
            CorpusError: a required column is missing, or a file cannot be read.
        """
        for path in self.paths():
            with _open(self, path) as file:
                names = _chosen(self, columns, required, file.schema_arrow)
                leaves = [f"{name}.path" if role == "audio" else name for role, name in names.items()]
                for batch in file.iter_batches(columns=leaves):
                    for row in batch.to_pylist():
                        yield {role: row.get(name) for role, name in names.items()}


def class_names(schema: "pa.Schema") -> Mapping[str, Sequence[str]]:
    """The class names of each `datasets.ClassLabel` column, from the metadata that this library writes."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {name: one["names"] for name, one in features.items() if one.get("_type") == "ClassLabel"}
    except (ValueError, KeyError, TypeError, AttributeError):  # not that library's metadata
        return {}


def in_class(value: Any, names: Sequence[str] | None) -> Any:
    """The name of a class given its number; any other value is returned unchanged."""
    return names[value] if names and isinstance(value, int) and 0 <= value < len(names) else value


@dataclass(frozen=True, slots=True)
class _Group:
    """A row group of a file."""

    number: int  # in its file, from 0
    first: int  # the index of its first row in the split
    rows: int  # the number of its rows


def _groups_of(split: HubSplit, indices: Set[int] | None) -> list[list[_Group]]:
    # The row groups of each file that contain any of the rows.
    first, found = 0, []
    for sizes in split.row_groups():
        groups = []
        for number, rows in enumerate(sizes):
            if indices is None or not indices.isdisjoint(range(first, first + rows)):
                groups.append(_Group(number, first, rows))
            first += rows
        found.append(groups)
    return found


@contextmanager
def _open(split: HubSplit, path: str) -> Iterator["pq.ParquetFile"]:
    # Open the file on this machine if it was fetched, otherwise over the network.
    local = split.repository.cached(path)
    try:
        with nullcontext(local) if local is not None else split.repository.open(path) as source:
            yield pq.ParquetFile(source)
    except EmttaError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(
            f"the file {path} of {split.repository.name} cannot be read: {' '.join(str(error).split())[:200]}; delete "
            "it from the hub's cache on this machine (`hf cache rm`) so that it is fetched again"
        ) from error


def _chosen(
    split: HubSplit, columns: Mapping[str, Sequence[str]], required: Collection[str], schema: "pa.Schema"
) -> dict[str, str]:
    found = {}
    for role, names in columns.items():
        name = next((name for name in names if name in schema.names), None)
        if name is None and role in required:
            raise CorpusError(
                f"{split} has no column {' or '.join(names)}, only {', '.join(schema.names)}; "
                "name one of these, or, if the data set has changed, use an older revision"
            )
        if name is not None:
            found[role] = name
    return found


def refuse_types(source: str, schema: "pa.Schema", names: Mapping[str, str]) -> None:
    """Refuse columns of the wrong type: a list's string representation, for example, is not a transcript.

    `names` are the names of the columns by what they contain; messages call the data set `source`.

    Raises:
        UsageError: naming the first such column, its type, and what is expected.
    """
    for role, name in names.items():
        kind = schema.field(name).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
        if role == "audio":
            fits = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
            must = "audio as stored by `datasets`, with the bytes of a file: cast_column(NAME, Audio())"
        else:
            fits = is_text or pa.types.is_null(kind) or (role != "text" and pa.types.is_integer(kind))
            must = "text" if role == "text" else "text or whole numbers"
        if not fits:
            raise UsageError(
                f"the column {name!r} of {source}, named as {role}, contains {kind}; it must contain {must}: name "
                "another column, or add one"
            )


def _paths(split: HubSplit) -> list[str]:
    # The Parquet files of a pinned split, in order; empty if it has none.
    listing = split.repository.listing()
    available = sorted(path for path in listing.sizes if path.endswith(".parquet"))
    patterns = _patterns(split, listing.configs)
    if patterns:
        return [path for path in available if any(re.fullmatch(glob_translate(pattern), path) for pattern in patterns)]
    pattern = re.compile(rf"(?:[^/]+/)?{re.escape(split.config)}/(partial-)?{re.escape(split.split)}[-/.].*")
    found = [path for path in available if pattern.fullmatch(path)]
    if any(f"{split.config}/partial-" in path for path in found):
        _warn_of_partial(split)
    return found


@cache_in_memory
def _warn_of_partial(split: HubSplit) -> None:
    log.warning("%s: the hub's conversion is marked partial; compare the count with the data set's page", split)


def _patterns(split: HubSplit, configs: Sequence[Mapping[str, Any]]) -> list[str]:
    # The patterns in the data set's card for the files of a split.
    for config in configs:
        if config.get("config_name") == split.config and isinstance(config.get("data_files"), list):
            for entry in config["data_files"]:
                if isinstance(entry, dict) and entry.get("split") == split.split:
                    path = entry.get("path")
                    return [path] if isinstance(path, str) else list(path or ())
    return []


def _no_parquet(split: HubSplit) -> UsageError:
    listing = split.repository.listing()
    by_card = {
        f"{config.get('config_name')}: {', '.join(_splits(config))}" for config in listing.configs if _splits(config)
    }
    folders = {path.partition("/")[0] for path in listing.sizes if path.endswith(".parquet") and "/" in path}
    choices = "; ".join(sorted(by_card)) or ", ".join(sorted(folders))
    return UsageError(
        f"the data set {split.repository.name} has no split {split.split!r} of {split.config!r} in Parquet; "
        + (f"choose from: {choices}" if choices else f"it has no Parquet at all; see {split.repository.url}")
    )


def _splits(config: Mapping[str, Any]) -> list[str]:
    entries = config.get("data_files")
    return (
        [str(entry.get("split")) for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    )
