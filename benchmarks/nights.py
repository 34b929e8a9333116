"""Random nightly runs with rows and files like real ones, for `store.py`.

Texts, errors and traces are drawn again for each night, from one set of utterances.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from emtta_core.store import CellKey, CellRow, PlanRow, RunRow, Store
from emtta_core.store.parquet import parquet
from emtta_core.store.snapshot import PACKS
from emtta_core.store.tables import TABLES

METHODS = ("source", "greedy-em", "em-seq", "em-tok", "em-tok-b")
DOMAINS = {
    f"{group}-{number}": group
    for group, count in (("noise", 8), ("accent", 8), ("language", 7))
    for number in range(count)
}
UTTERANCES, SHARD, VARIANTS, WORDS = 300, 16, 5, 12
FIRST_NIGHT = datetime(2026, 1, 1, 2, tzinfo=UTC)


@dataclass(frozen=True)
class Speech:
    """Utterances that are the same every night, and `VARIANTS` possible hypotheses for each, with 0, 1, … errors."""

    references: np.ndarray
    hypotheses: np.ndarray

    @classmethod
    def make(cls) -> "Speech":
        """Draw random transcripts, and for each number of errors a copy with that many words replaced."""
        rng = np.random.default_rng(0)
        words = np.array(["".join(rng.choice(list("abdegiklmnoprstu"), rng.integers(2, 9))) for _ in range(2000)])
        spoken = words[rng.integers(len(words), size=(len(DOMAINS) * UTTERANCES, WORDS))]
        hypotheses = []
        for errors in range(VARIANTS):
            text = spoken.copy()
            text[:, :errors] = words[rng.integers(len(words), size=(len(text), errors))]
            hypotheses.append([" ".join(line) for line in text])
        return cls(np.array([" ".join(line) for line in spoken]), np.array(hypotheses))


def night_tables(speech: Speech, night: int, steps: int) -> dict[str, pa.Table]:
    """Return the rows of one night by kind of pack, except its cells, sorted by domain, method and utterance."""
    rng = np.random.default_rng(night + 1)
    shape = (len(DOMAINS), len(METHODS), UTTERANCES)
    count = int(np.prod(shape))
    domain, method, utterance = (axis.ravel() for axis in np.indices(shape))
    spoken = domain * UTTERANCES + utterance
    errors = rng.binomial(VARIANTS - 1, np.array([0.4, 0.38, 0.36, 0.34, 0.33])[method])
    before = rng.binomial(VARIANTS - 1, 0.4, count)
    names = np.array([f"u{number:05d}" for number in range(UTTERANCES)])
    states = np.where(method == 0, 1, steps + 1)
    whose = np.repeat(np.arange(count), states)
    step = np.arange(len(whose)) - np.repeat(np.cumsum(states) - states, states)
    offsets = np.concatenate([[0], np.cumsum(states)])
    cells = np.array([[f"{one}.{other}" for other in METHODS] for one in DOMAINS])

    def keys(rows: np.ndarray) -> dict[str, Any]:
        return {
            "domain": np.array(list(DOMAINS))[domain[rows]],
            "method": np.array(METHODS)[method[rows]],
            "seed": same(None, pa.int64(), len(rows)),
            "cell_id": cells[domain[rows], method[rows]],
            "attempt": np.ones(len(rows), np.int64),
            "utterance_id": names[utterance[rows]],
        }

    def same(value: Any, kind: pa.DataType, rows: int = count) -> pa.Array:
        return pa.repeat(pa.scalar(value, kind), rows)

    def by_step(counts: np.ndarray) -> pa.Array:
        return pa.ListArray.from_arrays(offsets.astype(np.int32), counts)

    hypotheses, reference = speech.hypotheses[errors, spoken], speech.references[spoken]
    utterance_columns = {
        **keys(np.arange(count)),
        "language": same("en", pa.string()),
        "speaker": np.array([f"s{number}" for number in range(20)])[utterance % 20],
        "audio_seconds": 2 + (spoken % 97) / 20,
        "reference": reference,
        "hypothesis": hypotheses,
        "source_hypothesis": speech.hypotheses[before, spoken],
        "entropy_before": rng.gamma(2, 0.4, count),
        "entropy_after": rng.gamma(2, 0.2, count),
        "tokens": rng.integers(10, 40, count),
        "seconds": rng.gamma(2, 0.1, count),
        "flags": pa.ListArray.from_arrays(np.zeros(count + 1, np.int32), pa.array([], pa.string())),
        "error": same(None, pa.string()),
        "utterance_key": same("", pa.string()),
        "metadata": same("{}", pa.string()),
        "position": same(None, pa.int64()),
        "scorer": same("whisper", pa.string()),
        "hits": WORDS - errors,
        "substitutions": errors,
        "deletions": same(0, pa.int64()),
        "insertions": same(0, pa.int64()),
        "insertion_run": same(0, pa.int64()),
        "words": same(WORDS, pa.int64()),
        "characters": np.char.str_len(reference),
        "character_errors": errors * 4,
        "normalizer": same("english 1", pa.string()),
        "reference_normalized": reference,
        "hypothesis_normalized": hypotheses,
        "step_substitutions": by_step(rng.integers(0, 5, len(whose))),
        "step_deletions": by_step(np.zeros(len(whose), np.int64)),
        "step_insertions": by_step(np.zeros(len(whose), np.int64)),
        "score_error": same(None, pa.string()),
        "counts": same(True, pa.bool_()),
    }
    figures = {name: rng.normal(size=len(whose)) for name in _FIGURES}
    step_columns = {
        **keys(whose),
        "step": step,
        "hypothesis": speech.hypotheses[rng.integers(VARIANTS, size=len(whose)), spoken[whose]],
        "tokens": rng.integers(10, 40, len(whose)),
        **figures,
    }
    return {
        name: _table(name, columns) for name, columns in (("utterances", utterance_columns), ("steps", step_columns))
    }


_FIGURES = (
    *("entropy", "loss", "policy_loss", "entropy_loss", "candidate_entropy"),
    *("advantage_std", "gradient_norm", "candidate_tokens"),
)


def _table(name: str, columns: dict[str, Any]) -> pa.Table:
    schema = PACKS[name].schema
    return pa.table({column: columns[column] for column in schema.names}).cast(schema)


def plan_row(group: str, domain: str, method: str, utterances: int) -> PlanRow:
    """Return a planned cell, with readable ids."""
    return PlanRow(
        domain=domain,
        group=group,
        method=method,
        cell_id=f"{domain}.{method}",
        corpus_id=f"corpus-{domain}",
        recipe_id=f"recipe-{method}",
        utterances=utterances,
    )


def run_row(suite: str, created_at: datetime) -> RunRow:
    """Return the record of a run of a suite."""
    return RunRow(
        suite=suite,
        suite_toml=f'name = "{suite}"',
        plan_id="0123456789abcdef",
        created_at=created_at,
        model="demo",
        model_digest="d",
        algorithm_version=1,
        versions="{}",
        git_commit=None,
        host="here",
    )


def run_name(night: int) -> str:
    return f"nightly-{FIRST_NIGHT + timedelta(days=night):%Y-%m-%d}"


def write_night(store: Store, speech: Speech, night: int, steps: int, shards: bool) -> None:
    """Write a night, with its record last."""
    run_id, created_at = run_name(night), FIRST_NIGHT + timedelta(days=night)
    tables = night_tables(speech, night, steps)
    plan = [plan_row(group, domain, method, UTTERANCES) for domain, group in DOMAINS.items() for method in METHODS]
    cell_rows = [
        CellRow(
            cell_id=cell.cell_id,
            attempt=1,
            group=cell.group,
            state="complete",
            planned=UTTERANCES,
            done=UTTERANCES,
            reused=0,
            errors=0,
            error=None,
            started_at=created_at,
            finished_at=created_at + timedelta(minutes=1),
            seconds=60.0,
            audio_seconds=1200.0,
            device="cpu",
            peak_memory_bytes=None,
            host="here",
            batch_size=SHARD,
        )
        for cell in plan
    ]
    store.write_plan(run_id, plan)
    if shards:
        for cell, row in zip(plan, cell_rows, strict=True):
            key = CellKey(run_id, cell.domain, cell.method)
            attempt = store.begin_attempt(key)
            write_shards(store, key, attempt, tables)
            store.write_cell(key, row)
    else:
        rows = [
            {"domain": cell.domain, "method": cell.method, "seed": cell.seed, **_plain(row)}
            for cell, row in zip(plan, cell_rows, strict=True)
        ]
        tables["cells"] = pa.Table.from_pylist(rows, schema=PACKS["cells"].schema)
        for name, table in tables.items():
            store.backend.write(PACKS[name].file(run_id, 1), parquet(table))
    store.write_run(run_id, run_row("nightly", created_at))


def write_shards(store: Store, key: CellKey, attempt: int, tables: dict[str, pa.Table]) -> None:
    """Write an attempt at a cell as a run does: for each shard the steps, the hypotheses, the scores."""
    cell = list(DOMAINS).index(key.domain) * len(METHODS) + METHODS.index(key.method)
    rows = tables["utterances"].slice(cell * UTTERANCES, UTTERANCES)
    every = tables["steps"]
    of_cell = every.filter((pa.compute.field("domain") == key.domain) & (pa.compute.field("method") == key.method))
    states = len(of_cell) // UTTERANCES
    for shard, start in enumerate(range(0, UTTERANCES, SHARD)):
        for name in ("steps", "hypotheses", "scores"):
            each = states if name == "steps" else 1
            part = (of_cell if name == "steps" else rows).slice(start * each, SHARD * each)
            schema, pack = TABLES[name].schema, PACKS["steps" if name == "steps" else "utterances"]
            columns = pack.columns(TABLES[name].row)
            table = part.select(list(columns.values())).rename_columns(list(columns)).cast(schema)
            store.backend.write_new(f"{name}/{key.folder}/{attempt:03d}-{shard:05d}.parquet", parquet(table))


def _plain(row: CellRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in TABLES["cells"].schema.names}
