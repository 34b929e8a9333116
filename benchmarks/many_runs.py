"""Measure how long the list of many small runs takes, in the terminal and in the browser.

    python benchmarks/many_runs.py FOLDER --runs 2000

creates two stores with the same runs, unless FOLDER has them: `loose` with the files that a run writes, and `packed`
with those that compaction leaves. It then measures, in new processes: the report `runs`, which reads everything; the
list, first uncached and then again, without imports; the commands `emtta list` and, for one run, `emtta report
leaderboard`; and the first page of `emtta view`, for one reader and for twenty at once. A run has six cells of four
utterances; the store writes it once, and it is copied under other names. Figures go to
`benchmarks/results/many-runs.json`, with the machine's load.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pyarrow as pa
import pyarrow.parquet as pq
from nights import plan_row, run_row
from store import files_in, peak_memory

from emtta_core.cache import CACHE
from emtta_core.pipeline.run_statistics import update_statistics
from emtta_core.scoring.wer import Transcription, score
from emtta_core.store import CellKey, CellRow, HypothesisRow, ScoreRow, StepRow, Store
from emtta_core.store.compaction import compact
from emtta_core.store.parquet import parquet

RESULTS = Path(__file__).parent / "results" / "many-runs.json"
CELLS = [(domain, method) for domain in ("babble", "rain", "wind") for method in ("source", "em-tok-b")]
UTTERANCES, STEPS, READERS = 4, 3, 20
REFERENCE, HYPOTHESES = "red green blue river", ("red wrong blue river", "red green blue river")
CREATED_AT = datetime(2026, 1, 1, tzinfo=UTC)
TEMPLATE = "template"
EMTTA = (sys.executable, "-m", "emtta_core")
GOALS = {
    "loose": {"list": 4.0, "page": 1.0, "readers": 5.0, "peak_memory_bytes": 1e9},
    "packed": {"list": 1.0, "page": 1.0, "readers": 5.0, "peak_memory_bytes": 1e9},
}
"""Seconds and bytes: the list after imports; the page for one reader after the first load; all readers at once."""


def write_run(store: Store) -> None:
    """Write the run that all others are copies of, as the pipeline does."""
    plan = [plan_row("noise", domain, method, UTTERANCES) for domain, method in CELLS]
    store.write_plan(TEMPLATE, plan)
    store.write_run(TEMPLATE, run_row("small", CREATED_AT))
    for cell in plan:
        key = CellKey(TEMPLATE, cell.domain, cell.method)
        _write_cell(store, key, cell.cell_id, store.begin_attempt(key))
    update_statistics(store, TEMPLATE)


def _write_cell(store: Store, key: CellKey, cell_id: str, attempt: int) -> None:
    states = [HYPOTHESES[0]] if key.method == "source" else [HYPOTHESES[0], *[HYPOTHESES[1]] * STEPS]
    columns = score(Transcription("u", "en", REFERENCE, states[-1], states), states, "whisper")
    steps, hypotheses, scores = [], [], []
    for number in range(UTTERANCES):
        same = {"cell_id": cell_id, "attempt": attempt, "utterance_id": f"u{number}"}
        steps += [
            StepRow(**same, step=step, hypothesis=text, entropy=1.0, tokens=5) for step, text in enumerate(states)
        ]
        hypotheses.append(
            HypothesisRow(
                **same,
                language="en",
                speaker=f"s{number}",
                audio_seconds=2.0,
                reference=REFERENCE,
                hypothesis=states[-1],
                source_hypothesis=states[0],
                entropy_before=1.0,
                entropy_after=0.5,
                tokens=5,
                seconds=0.1,
            )
        )
        scores.append(ScoreRow(**same, **columns))
    store.write_steps(key, attempt, 0, steps)
    store.write_hypotheses(key, attempt, 0, hypotheses)
    store.write_scores(key, attempt, 0, scores)
    store.write_cell(
        key,
        CellRow(
            cell_id=cell_id,
            attempt=attempt,
            group="noise",
            state="complete",
            planned=UTTERANCES,
            done=UTTERANCES,
            reused=0,
            errors=0,
            error=None,
            started_at=CREATED_AT,
            finished_at=CREATED_AT,
            seconds=1.0,
            audio_seconds=2.0 * UTTERANCES,
            device="cpu",
            peak_memory_bytes=None,
            host="here",
            batch_size=UTTERANCES,
        ),
    )


def make(folder: Path, runs: int) -> None:
    """Create the missing runs of both stores; copies are not flushed, which would take an hour."""
    for kind in GOALS:
        origin, store = folder / f"template-{kind}", folder / kind
        if store.exists():
            continue
        shutil.rmtree(origin, ignore_errors=True)
        opened = Store.open(origin, create=True)
        write_run(opened)
        if kind == "packed":
            compact(opened, TEMPLATE)
        contents = {
            str(path.relative_to(origin)): path.read_bytes()
            for path in origin.rglob("*")
            if path.is_file() and f"run_id={TEMPLATE}" in str(path)
        }
        unfinished = folder / f"unfinished-{kind}"
        shutil.rmtree(unfinished, ignore_errors=True)
        for number in range(runs):
            _copy(contents, unfinished, f"small-{number:05d}", CREATED_AT + timedelta(hours=number))
        unfinished.rename(store)


def _copy(contents: dict[str, bytes], store: Path, run_id: str, created_at: datetime) -> None:
    """Write the files of a run under another name and start time."""
    for name, content in contents.items():
        path = store / name.replace(f"run_id={TEMPLATE}", f"run_id={run_id}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_with_created_at(content, created_at) if name.startswith("runs/") else content)


def _with_created_at(content: bytes, created_at: datetime) -> bytes:
    """Return the record of a run with another start time."""
    record = pq.read_table(pa.BufferReader(content))
    index = record.schema.get_field_index("created_at")
    field = record.schema.field(index)
    return parquet(record.set_column(index, field, pa.array([created_at], field.type)))


def time_list(location: str) -> dict[str, Any]:
    """Load the list once in this process, with all imports done."""
    from emtta_core.store.run_list import RunList

    return _timed(lambda: len(RunList(Store.open(location)).refresh().records))


def time_report(location: str) -> dict[str, Any]:
    """Query the report `runs` once in this process."""
    from emtta_core.store.catalogue import Catalogue

    def query() -> int:
        with Catalogue(Store.open(location)) as catalogue:
            return len(catalogue.report("runs").records)

    return _timed(query)


def _timed(query: Callable[[], int]) -> dict[str, Any]:
    wall, cpu = time.perf_counter(), time.process_time()
    rows = query()
    took = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    return {**took, "rows": rows, "peak_memory_bytes": peak_memory()}


def time_pages(location: str) -> dict[str, Any]:
    """Serve the list in this process, and read it."""
    from emtta_core.report.view_server import ViewServer

    with ViewServer(Store.open(location)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()

        def read(_: object = None) -> None:
            with urlopen(server.url) as response:
                assert f"small-{0:05d}" in response.read().decode()

        first = _seconds(read)
        one = [_seconds(read) for _ in range(5)]
        with ThreadPoolExecutor(READERS) as readers:
            many = [_seconds(lambda: list(readers.map(read, range(READERS)))) for _ in range(3)]
        server.shutdown()
        thread.join()
    return {"first_page": first, "page": one, "readers": many, "peak_memory_bytes": peak_memory()}


def _seconds(what: Callable[[], object]) -> float:
    started = time.perf_counter()
    what()
    return time.perf_counter() - started


def measure(location: Path, repeat: int) -> dict[str, Any]:
    """Measure one store, each question in a new process."""
    files, size = files_in(str(location))
    found: dict[str, Any] = {"files": files, "bytes": size, "load_average": os.getloadavg()}
    found |= {
        "report": _timed_in_process(location, "report"),
        "first_list": _timed_in_process(location, "list"),
        "list": [],
    }
    run = next((location / "runs").iterdir()).name.removeprefix("run_id=")
    commands = {"command": ["list"], "leaderboard": ["report", "leaderboard", "--run", run]}
    for _ in range(repeat):
        found["list"].append(_timed_in_process(location, "list"))
        for name, words in commands.items():
            found.setdefault(name, []).append(_seconds(partial(_silent, words, location)))
    found |= {"view": _timed_in_process(location, "pages"), "load_average_after": os.getloadavg()}
    return found


def _silent(words: Sequence[str], location: Path) -> None:
    command = [*EMTTA, *words, "--format", "json", "--store", str(location)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _timed_in_process(location: Path, what: str) -> dict[str, Any]:
    command = [sys.executable, __file__, str(location), "--ask", what]
    answer: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return answer


def show(kind: str, found: dict[str, Any]) -> None:
    """Print the figures of a store, with the goals."""
    goal, view, lists = GOALS[kind], found["view"], found["list"]
    print(f"{kind}: {found['files']:,} files, {found['bytes'] / 1e6:.0f} MB, {lists[0]['rows']:,} runs")
    for name in ("report", "first_list"):
        one = found[name]
        print(f"  {name}: {one['wall']:.2f} s (CPU {one['cpu']:.2f} s), {one['peak_memory_bytes'] / 1e6:.0f} MB")
    walls, cpus = (", ".join(f"{one[unit]:.2f}" for one in lists) for unit in ("wall", "cpu"))
    print(f"  list: {walls} s (CPU {cpus} s), {lists[0]['peak_memory_bytes'] / 1e6:.0f} MB; goal {goal['list']} s")
    for command, name in (("list", "command"), ("report leaderboard", "leaderboard")):
        print(f"  emtta {command}: {', '.join(f'{wall:.2f}' for wall in found[name])} s")
    print(
        f"  page: first {view['first_page']:.2f} s, then {statistics.median(view['page']):.2f} s; goal {goal['page']} s"
    )
    print(f"  {READERS} readers: {max(view['readers']):.2f} s; goal {goal['readers']} s")
    print(
        f"  view: {view['peak_memory_bytes'] / 1e6:.0f} MB; goal {goal['peak_memory_bytes'] / 1e6:.0f} MB", flush=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the stores, existing or new")
    parser.add_argument("--runs", type=int, default=2000, help="runs of each new store (default: 2000)")
    parser.add_argument("--repeat", type=int, default=3, help="number of measurements of the list (default: 3)")
    parser.add_argument("--label", default="now", help="name of the figures in the results (default: now)")
    parser.add_argument("--no-results", action="store_true", help="write no results")
    parser.add_argument("--ask", choices=list(ASKED), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ask:
        print(json.dumps(ASKED[given.ask](str(given.folder))))
        return
    make(given.folder, given.runs)
    with tempfile.TemporaryDirectory(prefix="emtta-cache-") as cache:
        os.environ[CACHE] = cache
        measure_all(given)


ASKED = {"report": time_report, "list": time_list, "pages": time_pages}
"""The questions that a new process answers, by name."""


def measure_all(given: argparse.Namespace) -> None:
    """Measure both stores, and print and keep the figures."""
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "duckdb": __import__("duckdb").__version__}
    found: dict[str, Any] = {"measured_at": datetime.now(UTC).isoformat(timespec="seconds"), **machine}
    for kind in GOALS:
        found[kind] = measure(given.folder / kind, given.repeat)
        show(kind, found[kind])
    if not given.no_results:
        results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        RESULTS.write_text(json.dumps({**results, given.label: found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
