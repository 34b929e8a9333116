"""What a run costs that computes nothing: the flow, its tasks, its processes and the store, without the model.

    python benchmarks/orchestration.py

runs suites of 23 domains with one and with five methods through the real flow, once with `--isolation none` and once
with processes. Each domain has one utterance whose file is missing, so that a cell loads the model, adapts nothing, and
writes its rows and its record. The difference between the two suites is what a cell costs; the rest is the start, the
preparation of 23 domains included. Each run is a process of its own with a temporary server of Prefect's, and its
children's CPU seconds are counted. Figures go to `benchmarks/results/orchestration.json`.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "orchestration.json"
DOMAINS = 23
METHODS = ("source", "greedy-em", "em-seq", "em-tok", "em-tok-b")
CELL_GOAL, START_GOAL = 0.060, 15.0  # seconds

HEAD = """\
name = "nothing"
methods = {methods}
model = {{ name = "demo", device = "cpu" }}
runtime = {{ isolation = "{isolation}", workers = {workers} }}
"""
DOMAIN = '[[domains]]\nname = "d{number}"\ngroup = "noise"\ncorpus = {{ name = "folder", path = "speech{number}" }}\n'


def write_suite(folder: Path, methods: int, isolation: str, workers: int) -> Path:
    """Write a suite whose every utterance lacks its file."""
    for number in range(DOMAINS):
        corpus = folder / f"speech{number}"
        corpus.mkdir(parents=True, exist_ok=True)
        (corpus / "manifest.csv").write_text(f"path,text\nmissing{number}.wav,nobody hears this\n")
    domains = "".join(DOMAIN.format(number=number) for number in range(DOMAINS))
    path = folder / "nothing.toml"
    path.write_text(HEAD.format(methods=list(METHODS[:methods]), isolation=isolation, workers=workers) + domains)
    return path


def carry_out(suite: str, store: str) -> dict[str, float]:
    """Run a suite in this process; return what it took, from the first import on."""
    begun = time.perf_counter()
    from flows.cli.logs import settle_environment

    settle_environment()
    from emtta_core.pipeline.progress import CellFinished, Event, Started, channel
    from flows.cli import server
    from flows.evaluate import evaluate

    found: dict[str, float] = {"imported": time.perf_counter() - begun}
    finished: list[float] = []

    def hear(event: Event) -> None:
        now = time.perf_counter() - begun
        if isinstance(event, Started):
            found["started"] = now
        elif isinstance(event, CellFinished):
            finished.append(now)

    server.reach()
    found["server"] = time.perf_counter() - begun
    with channel.listening(hear):
        state = evaluate(suite=suite, store=store, return_state=True)
    if not state.is_completed():
        sys.exit(f"the run did not complete: {state.message}")
    found |= {"first_cell": finished[0], "last_cell": finished[-1], "ended": time.perf_counter() - begun}
    return {**found, "cells": float(len(finished))}


def measure(methods: int, isolation: str, workers: int) -> dict[str, Any]:
    """Run a suite in a process of its own, with a home of its own for Prefect's server."""
    with tempfile.TemporaryDirectory(prefix="emtta-orchestration-") as folder:
        suite = write_suite(Path(folder), methods, isolation, workers)
        environment = {**os.environ, "PREFECT_HOME": str(Path(folder) / "prefect"), "PREFECT_LOGGING_LEVEL": "WARNING"}
        environment.pop("PREFECT_API_URL", None)
        before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [sys.executable, __file__, "--carry-out", str(suite), str(Path(folder) / "store")]
        answered = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = json.loads(answered.stdout.splitlines()[-1])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {**found, "wall": time.perf_counter() - wall, "cpu": cpu, "load_average": os.getloadavg()[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1, help="cells at once (default: 1)")
    parser.add_argument("--no-results", action="store_true", help="keep no results")
    parser.add_argument("--carry-out", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.carry_out:
        print(json.dumps(carry_out(*given.carry_out)))
        return
    results: dict[str, Any] = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "prefect": version("prefect"),
        "workers": given.workers,
    }
    for isolation in ("none", "process"):
        few, many = (measure(methods, isolation, given.workers) for methods in (1, len(METHODS)))
        more = many["cells"] - few["cells"]
        per_cell = {
            "wall": ((many["ended"] - many["started"]) - (few["ended"] - few["started"])) / more,
            "cpu": (many["cpu"] - few["cpu"]) / more,
        }
        results[isolation] = {"few": few, "many": many, "per_cell": per_cell}
        print(
            f"isolation {isolation}: a cell takes {1000 * per_cell['wall']:.0f} ms "
            f"(CPU {1000 * per_cell['cpu']:.0f} ms; goal {1000 * CELL_GOAL:.0f} ms), "
            f"the start {many['started']:.1f} s (goal {START_GOAL:.0f} s), "
            f"{many['cells']:.0f} cells {many['wall']:.1f} s (CPU {many['cpu']:.1f} s); "
            f"load average {many['load_average']:.1f} on {os.cpu_count()} cores",
            flush=True,
        )
    if not given.no_results:
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
