"""Measure how long it takes to score a run's stored hypotheses again.

    python benchmarks/rescoring.py FOLDER --utterances 8700

writes a random run of 23 domains with 5 methods and this many utterances each, unless FOLDER has it; `nights.py` draws
it, compacted as by `emtta compact`: 1,000,500 hypotheses of twelve words each, and one step of each. `emtta score` then
scores them with another scorer, and the benchmark prints wall and CPU seconds, the maximum memory of its processes
together (each page counted once, as in the kernel's PSS), and the machine's load. The texts are synthetic. Figures go
to `benchmarks/results/rescoring.json`.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import nights

from emtta_core.store import Catalogue, Store

RESULTS = Path(__file__).parent / "results" / "rescoring.json"
GOALS = {"seconds": 180.0, "memory_bytes": 2e9}


def write(folder: Path, utterances: int) -> Store:
    """Return the store with the run, writing it if it is missing."""
    store_folder = folder / f"rescoring-{utterances}"
    if not store_folder.exists():
        nights.UTTERANCES = utterances
        unfinished = store_folder.with_suffix(".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        nights.write_night(Store.open(unfinished, create=True), nights.Speech.make(), 0, steps=0, shards=False)
        unfinished.rename(store_folder)
    return Store.open(store_folder)


def tree_memory(process: int) -> int:
    """Return the memory of a process and its children in bytes, each shared page counted once."""
    total = 0
    with suppress(OSError):
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
        total += sum(map(tree_memory, map(int, children)))
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def main() -> None:
    """Write, score, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--utterances", type=int, default=8_700, help="utterances per cell (default: %(default)s)")
    parser.add_argument("--scorer", default="basic", help="the scorer (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    store = write(options.folder, options.utterances)
    run_id = nights.run_name(0)
    shutil.rmtree(Path(store.location) / "rescores", ignore_errors=True)
    command = [sys.executable, "-m", "emtta_core", "score", run_id, "--scorer", options.scorer]
    command += ["--workers", str(options.workers), "--store", store.location]
    before, started, peak = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter(), 0
    with subprocess.Popen(command) as process:
        waiting = threading.Thread(target=process.wait)
        waiting.start()
        while waiting.is_alive():
            peak = max(peak, tree_memory(process.pid))
            waiting.join(0.5)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    with Catalogue(store, scorer=options.scorer) as catalogue:
        ((scored,),) = catalogue.query("SELECT count(words) FROM utterances").rows
    found = {
        "hypotheses": scored,
        "scorer": options.scorer,
        "workers": options.workers,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "memory_bytes": peak,
        "load_at_the_end": os.getloadavg()[0],
        "machine": platform.machine(),
        "cores": os.cpu_count(),
    }
    print(json.dumps(found, indent=2))
    for name, goal in GOALS.items():
        print(f"{name}: {found[name]:,} of at most {goal:,.0f}: {'met' if found[name] <= goal else 'missed'}")
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps(results | {f"{options.scorer}-{options.utterances}": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
