"""Measure how fast a store of many nightly runs answers queries.

    python benchmarks/store.py FOLDER --nights 365

writes one run per night, each with 23 domains, 5 methods and 300 utterances, unless FOLDER has it. It then asks each
question in a new process on two cores, and measures wall and CPU seconds of opening the store and of asking three
times, and the process's peak memory. The questions are every report on one run, its page, and the queries over all
runs; statistics are computed only for the newest night. Figures go to `benchmarks/results/store.json`, with the
machine's load.

    python benchmarks/store.py FOLDER --nights 2 --shards

writes the nights as runs do, in shards of 16 utterances, asks, compacts them with `emtta_core.store.compaction`, and
asks again. Without `--shards`, it writes the packs that compaction leaves: 6,787 files a night with their flushes would
measure the disk. `nights.py` draws the content of a night.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from nights import DOMAINS, METHODS, UTTERANCES, Speech, run_name, write_night

from emtta_core.pipeline.run_statistics import update_statistics
from emtta_core.store import Store, reports
from emtta_core.store.compaction import compact

RESULTS = Path(__file__).parent / "results" / "store.json"
ROOM = 2.0  # times the size of the nights must be free

QUERIES = {
    "leaderboard": "of one run",
    "detail": "every utterance of one run with its texts",
    "latest": "the rows that count of all runs, their errors summed",
    "runs": "how far each run is",
    "statistics": "the view of that name, of one run",
    "page": "the page on one run, its charts drawn",
    **{
        f"report {name}": query.summary
        for name, query in reports().items()
        if name not in ("leaderboard", "runs")  # listed above
    },
}
GOALS = {"leaderboard": 1.0, "detail": 0.2, "latest": 2.0, "page": 5.0}


def time_query(location: str, question: str) -> dict[str, Any]:
    """Answer one question three times in this process; return the times and the memory."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    from emtta_core.report import make_page
    from emtta_core.store.catalogue import Catalogue
    from emtta_core.store.result import Result

    def timed() -> Iterator[float]:
        while True:
            yield time.perf_counter()
            yield time.process_time()

    store = Store.open(location)
    nights = sorted(path.name.removeprefix("run_id=") for path in Path(location, "runs").iterdir())
    run_id, before = nights[-1], nights[-2:][0]
    clock = timed()
    wall, cpu = next(clock), next(clock)
    catalogue = Catalogue(store)
    found: dict[str, Any] = {"open_wall": next(clock) - wall, "open_cpu": next(clock) - cpu, "wall": [], "cpu": []}
    for _ in range(3):
        wall, cpu = next(clock), next(clock)
        match question:
            case "leaderboard":
                result = catalogue.report("leaderboard", run_id)
            case "detail":
                result = catalogue.query(
                    "SELECT domain, method, utterance_id, attempt, wer, reference, hypothesis, error "
                    "FROM utterances WHERE run_id = $run",
                    {"run": run_id},
                )
            case "latest":
                result = catalogue.query(
                    "SELECT count(*) AS utterances, sum(errors) AS errors, sum(words) AS words FROM utterances"
                )
            case "statistics":
                result = catalogue.query("SELECT * FROM statistics WHERE run_id = $run", {"run": run_id})
            case "page":
                result = Result(pa.table({"bytes": [len(make_page(store, run_id).html.encode())]}))
            case "runs":
                result = catalogue.report("runs")
            case "report pairs":
                result = catalogue.report("pairs", run_id, baseline=before)
            case _:
                result = catalogue.report(question.removeprefix("report "), run_id)
        found["wall"].append(next(clock) - wall)
        found["cpu"].append(next(clock) - cpu)
    found["rows"] = result.table.num_rows
    found["first_row"] = {key: str(value)[:60] for key, value in (result.records or [{}])[0].items()}
    found["peak_memory_bytes"] = peak_memory()
    return found


def peak_memory() -> int:
    """Return this process's peak memory; the peak that getrusage reports is inherited from the parent."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def time_all(location: str, questions: list[str]) -> dict[str, Any]:
    """Answer each question in a new process."""
    found = {}
    for question in questions:
        command = [sys.executable, __file__, location, "--ask", question]
        answered = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found[question] = {**json.loads(answered.stdout), "load_average": os.getloadavg()[0]}
        one = found[question]
        wall, cpu = (", ".join(f"{value:.2f}" for value in one[kind]) for kind in ("wall", "cpu"))
        print(
            f"{question:18} {QUERIES[question]}: {wall} s (CPU {cpu} s), opening {one['open_wall']:.2f} s "
            f"(CPU {one['open_cpu']:.2f} s), {one['peak_memory_bytes'] / 1e6:.0f} MB, {one['rows']} rows"
            + (f"; goal {GOALS[question]} s" if question in GOALS else ""),
            flush=True,
        )
    return found


def files_in(location: str) -> tuple[int, int]:
    """Return the number of files of a store, and their bytes."""
    sizes = [path.stat().st_size for path in Path(location).rglob("*") if path.is_file()]
    return len(sizes), sum(sizes)


def keep(name: str, found: dict[str, Any]) -> None:
    """Add a measurement to the results."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "duckdb": __import__("duckdb").__version__}
    results[name] = {"measured_at": datetime.now(UTC).isoformat(timespec="seconds"), **machine, **found}
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="the store; existing nights are kept")
    parser.add_argument("--nights", type=int, default=20, help="the number of nights in the store (default: 20)")
    parser.add_argument("--steps", type=int, default=10, help="updates per utterance, for every method but source")
    parser.add_argument("--shards", action="store_true", help="write shards, ask, compact, and ask again")
    parser.add_argument("--question", action="append", choices=list(QUERIES), help="only this one; repeatable")
    parser.add_argument("--no-results", action="store_true", help="write no results")
    parser.add_argument("--ask", choices=list(QUERIES), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.ask:
        print(json.dumps(time_query(given.folder, given.ask)))
        return
    if given.nights < 1:
        parser.error(f"--nights is {given.nights}; at least one is needed")
    store, speech = Store.open(given.folder, create=True), Speech.make()
    missing = [
        night for night in range(given.nights) if not store.backend.exists(f"runs/run_id={run_name(night)}/run.parquet")
    ]
    wall, cpu = time.perf_counter(), time.process_time()
    for done, night in enumerate(missing):
        if done == 1:  # the first shows the size of a night
            size = files_in(given.folder)[1] / (given.nights - len(missing) + 1)
            needed, free = size * len(missing), shutil.disk_usage(given.folder).free
            print(
                f"a night takes {size / 1e6:.1f} MB; {needed / 1e9:.2f} GB are to be written, "
                f"{free / 1e9:.0f} GB are free"
            )
            if free < ROOM * needed:
                sys.exit("there is too little room; choose another folder, or fewer nights")
        write_night(store, speech, night, given.steps, given.shards)
    written = {"nights": len(missing), "wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    utterances = given.nights * len(DOMAINS) * len(METHODS) * UTTERANCES
    questions = given.question or list(QUERIES)
    newest = run_name(given.nights - 1)
    if update_statistics(store, newest):
        print(f"statistics were computed only for {newest}", flush=True)
    found: dict[str, Any] = {
        "nights": given.nights,
        "utterance_rows": utterances,
        "steps": given.steps,
        "written": written,
    }

    def measure(name: str) -> None:
        files, size = files_in(given.folder)
        print(f"{given.nights} nights, {utterances} utterances, {name}: {files} files, {size / 1e9:.2f} GB", flush=True)
        found[name] = {"files": files, "bytes": size, **time_all(given.folder, questions)}

    if given.shards:
        measure("shards")
        wall, cpu = time.perf_counter(), time.process_time()
        for run_id in store.runs():
            compact(store, run_id)
        found["compaction"] = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        print(f"compaction of a night: {found['compaction']['cpu'] / given.nights:.2f} s of CPU")
    measure("packs")
    if not given.no_results:
        keep(f"{given.nights} nights" + (", shards" if given.shards else ""), found)


if __name__ == "__main__":
    main()
