"""Measure the cost of a run that computes nothing: the flow, its tasks, its processes and the store, without the model.

    python benchmarks/orchestration.py
    python benchmarks/orchestration.py --store emtta-store --run demo-1a2b3c4d

runs suites of 23 domains with one and with five methods through the real flow, with `--isolation none` and with
processes. Each domain has one utterance whose file is missing, so that a cell loads the model, adapts nothing, and
writes its rows and its record. The difference between the two suites is the cost of a cell; the rest is the start,
including the preparation of 23 domains. Each run is a new process, and its children's CPU seconds are counted.

The start is measured with each kind of Prefect server that a user may have: a temporary one that first creates its
database, as in a machine's first run; a temporary one with an existing database; and a permanent one.

With a run of a store, it prints the share of all this in a night: 23 domains, 5 methods, 300 utterances each, at that
run's seconds per utterance. Figures go to `benchmarks/results/orchestration.json`.
"""

import argparse
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "orchestration.json"
DOMAINS = 23
METHODS = ("source", "greedy-em", "em-seq", "em-tok", "em-tok-b")
CELL_GOAL, START_GOAL = 0.060, 15.0  # seconds
NIGHT = 300  # utterances per domain
SERVER_PORT = 8791

HEAD = """\
name = "nothing"
methods = {methods}
model = {{ name = "demo", device = "cpu" }}
runtime = {{ isolation = "{isolation}", workers = {workers} }}
"""
DOMAIN = '[[domains]]\nname = "d{number}"\ngroup = "noise"\ncorpus = {{ name = "folder", path = "speech{number}" }}\n'


def write_suite(folder: Path, methods: int, isolation: str, workers: int) -> Path:
    """Write a suite in which every utterance's file is missing."""
    for number in range(DOMAINS):
        corpus = folder / f"speech{number}"
        corpus.mkdir(parents=True, exist_ok=True)
        (corpus / "manifest.csv").write_text(f"path,text\nmissing{number}.wav,nobody hears this\n")
    domains = "".join(DOMAIN.format(number=number) for number in range(DOMAINS))
    path = folder / "nothing.toml"
    path.write_text(HEAD.format(methods=list(METHODS[:methods]), isolation=isolation, workers=workers) + domains)
    return path


def execute(suite: str, store: str) -> dict[str, float]:
    """Run a suite in this process; return its times, from the first import on."""
    process_start = time.perf_counter()
    from flows.cli._log import configure_environment

    configure_environment()
    from flows.prefect_server import serving

    with serving(Path(store).with_name("server.log")) as reach:
        return _execute(suite, store, process_start, reach)


def _execute(suite: str, store: str, process_start: float, reach: Callable[[], None]) -> dict[str, float]:
    """Run a suite on the server that `reach` waits for; `process_start` is the start of this process."""
    from emtta_core.pipeline.events import CellFinished, Event, Started, channel
    from emtta_core.pipeline.models import digest_of
    from emtta_core.pipeline.run import plan_run, record
    from emtta_core.store import Store
    from emtta_core.suite import load_suite
    from flows.evaluate import evaluate

    found: dict[str, float] = {"imported": time.perf_counter() - process_start}
    finished: list[float] = []

    def listener(event: Event) -> None:
        now = time.perf_counter() - process_start
        if isinstance(event, Started):
            found["started"] = now
        elif isinstance(event, CellFinished):
            finished.append(now)

    reach()
    found["server"] = time.perf_counter() - process_start
    loaded = load_suite(suite)
    planned = plan_run(loaded, digest_of(loaded.model))
    record(planned, Store.open(store, create=True))
    with channel.listening(listener):
        state = evaluate(planned.run_id, store, return_state=True)
    if not state.is_completed():
        sys.exit(f"the run did not complete: {state.message}")
    found |= {"first_cell": finished[0], "last_cell": finished[-1], "ended": time.perf_counter() - process_start}
    return {**found, "cells": float(len(finished))}


def measure(home: Path, methods: int, isolation: str, workers: int, api: str | None = None) -> dict[str, Any]:
    """Run a suite in a new process, with Prefect's home in `home`; `api` is a permanent server."""
    with tempfile.TemporaryDirectory(prefix="emtta-orchestration-") as folder:
        suite = write_suite(Path(folder), methods, isolation, workers)
        before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [sys.executable, __file__, "--execute", str(suite), str(Path(folder) / "store")]
        environment = environment_of(home, api)
        completed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = json.loads(completed.stdout.splitlines()[-1])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {**found, "wall": time.perf_counter() - wall, "cpu": cpu, "load_average": os.getloadavg()[0]}


def environment_of(home: Path, api: str | None) -> dict[str, str]:
    """Return the environment of a process with its Prefect home in `home`."""
    quiet = {"PREFECT_LOGGING_LEVEL": "WARNING", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    environment = {**os.environ, **quiet, "PREFECT_HOME": str(home)}
    environment.pop("PREFECT_API_URL", None)
    return environment if api is None else {**environment, "PREFECT_API_URL": api}


@contextmanager
def shared_server(home: Path) -> Iterator[str]:
    """Run a permanent Prefect server inside the `with` block, and yield its address."""
    import httpx  # not at the top: the imports of the measured process are measured

    url = f"http://127.0.0.1:{SERVER_PORT}/api"
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(SERVER_PORT)]
    with subprocess.Popen(command, env=environment_of(home, None), stdout=subprocess.DEVNULL) as process:
        try:
            for _ in range(120):
                time.sleep(1)
                try:
                    if httpx.get(f"{url}/health").is_success:
                        break
                except httpx.TransportError:
                    continue
            yield url
        finally:
            process.send_signal(signal.SIGINT)


def seconds_of_a_night(store: str, run_id: str) -> float:
    """Return how long a night's cells would compute on this machine, at a run's seconds per utterance."""
    from emtta_core.store import Catalogue, Store

    with Catalogue(Store.open(store)) as catalogue:
        query = "SELECT sum(seconds) / sum(done) FROM cells WHERE run_id = $run_id"
        ((each,),) = catalogue.query(query, {"run_id": run_id}).rows
    return float(each) * NIGHT * DOMAINS * len(METHODS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1, help="cells at once (default: 1)")
    parser.add_argument("--store", default="emtta-store", help="the store of --run (default: emtta-store)")
    parser.add_argument("--run", help="a run that gives the time of an utterance")
    parser.add_argument("--no-results", action="store_true", help="write no results")
    parser.add_argument("--execute", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.execute:
        print(json.dumps(execute(*arguments.execute)))
        return
    results: dict[str, Any] = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "prefect": version("prefect"),
        "workers": arguments.workers,
    }
    with tempfile.TemporaryDirectory(prefix="emtta-orchestration-") as folder:
        home = Path(folder) / "prefect"
        results["start"] = starts(home, arguments.workers)
        for isolation in ("none", "process"):
            results[isolation] = cost_of_a_cell(home, isolation, arguments.workers)
    if arguments.run:
        night = seconds_of_a_night(arguments.store, arguments.run) / arguments.workers
        cost = (
            results["start"]["temporary"]["started"] + DOMAINS * len(METHODS) * results["process"]["per_cell"]["wall"]
        )
        results["night"] = {"utterances": NIGHT, "seconds": night, "orchestration": cost}
        share = f"{cost:.1f} s are {cost / night:.2%} of it"
        print(f"a night of {NIGHT} utterances per domain computes for {night:.0f} s; {share}")
    if not arguments.no_results:
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")


def starts(home: Path, workers: int) -> dict[str, Any]:
    """Measure the start with each server, in a home without a database, and print it."""
    found = {name: measure(home, 1, "process", workers) for name in ("first", "temporary")}
    with shared_server(home) as api:
        found["standing"] = measure(home, 1, "process", workers, api)
    for name, one in found.items():
        print(
            f"start, server {name}: {one['started']:.1f} s (goal {START_GOAL:.0f} s), of which imports "
            f"{one['imported']:.1f} s, the server {one['server'] - one['imported']:.1f} s; {loads(one)}",
            flush=True,
        )
    return found


def cost_of_a_cell(home: Path, isolation: str, workers: int) -> dict[str, Any]:
    """Measure the cost of a cell, from two suites with different numbers of cells, and print it."""
    few, many = (measure(home, methods, isolation, workers) for methods in (1, len(METHODS)))
    more = many["cells"] - few["cells"]
    per_cell = {
        "wall": ((many["ended"] - many["started"]) - (few["ended"] - few["started"])) / more,
        "cpu": (many["cpu"] - few["cpu"]) / more,
    }
    print(
        f"isolation {isolation}: a cell takes {1000 * per_cell['wall']:.0f} ms "
        f"(CPU {1000 * per_cell['cpu']:.0f} ms; goal {1000 * CELL_GOAL:.0f} ms), "
        f"{many['cells']:.0f} cells {many['wall']:.1f} s (CPU {many['cpu']:.1f} s); {loads(many)}",
        flush=True,
    )
    return {"few": few, "many": many, "per_cell": per_cell}


def loads(one: dict[str, Any]) -> str:
    """Return the load of the machine."""
    return f"load average {one['load_average']:.1f} on {os.cpu_count()} cores"


if __name__ == "__main__":
    main()
