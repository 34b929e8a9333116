"""Kill processes and inject errors into system calls at random moments, and check that nothing is lost.

    python benchmarks/chaos.py --kills 20 --errors 21

Each kill has its own run: `emtta run` on a small suite with the demo model, worker processes and Prefect's temporary
server. At a random moment between the first and the last shard, SIGKILL hits a worker, the flow or the server. For an
injected error, one call on a file of the store fails in each process (open, list a folder, flush, link, rename), as on
a full disk, or a network drive that is briefly unavailable.

Then: is each file readable? Is finished work unchanged? Does `emtta rerun` complete the run, and do its leaderboard and
rows equal those of an undisturbed run? Results are printed, and written to benchmarks/results/.
"""

import argparse
import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from emtta_core.pipeline.run import load_run
from emtta_core.store import Store
from emtta_core.store.catalogue import Catalogue

RESULTS = Path(__file__).parent / "results" / "chaos.json"
VICTIMS = {"worker": "emtta_core.worker", "flow": "", "server": "flows.prefect_server"}
RUN = "chaos"
EMTTA = (sys.executable, "-c", "from flows.cli.main import main; main()")
RERUNS = 3
LIMIT = 300.0
"""Seconds after which a command that should have ended counts as hung."""

SUITE = """\
name = "chaos"
methods = ["source", "em-tok-b"]
model = { name = "demo", device = "cpu" }
adaptation = { steps = 2, candidates = 4 }
runtime = { batch_size = 2, workers = 2, retries = 1, retry_delay = 0.1 }

[defaults]
corpus = { name = "synthetic", utterances = 8, language = "en" }

[[domains]]
name = "Scotland"
group = "accent"
corpus = { voices = ["en-gb-scotland"] }

[[domains]]
name = "Lancaster"
group = "accent"
corpus = { voices = ["en-gb-x-gbclan"] }
"""
SHARDS = 16
"""In the whole run: two domains, two methods, eight utterances each, two per shard."""


ERRORS = (errno.EIO, errno.ESTALE, errno.ENOSPC, errno.EMFILE, errno.EACCES)
CALLS = {
    "open": ("io", "open"),
    "list": ("os", "scandir"),
    "flush": ("os", "fsync"),
    "link": ("os", "link"),
    "name": ("os", "replace"),
}
MAX_CALLS = {"open": 120, "list": 120, "flush": 30, "link": 20, "name": 5}
"""For each kind of call, roughly the number that a process of the run makes."""

FAILING = """\
import json, os
from importlib import import_module

chosen = json.loads(os.environ["EMTTA_CHAOS"])
module = import_module(chosen["module"])
call, left = getattr(module, chosen["call"]), chosen["number"]


def path_of(first):
    return os.readlink(f"/proc/self/fd/{first}") if isinstance(first, int) else os.fspath(first)


def failing(first, *rest, **options):
    global left
    if left > 0 and path_of(first).startswith(chosen["store"]):
        left -= 1
        if not left:
            with call(chosen["sign"], "a") if chosen["call"] == "open" else open(chosen["sign"], "a") as sign:
                sign.write("x")
            raise OSError(chosen["errno"], os.strerror(chosen["errno"]), path_of(first))
    return call(first, *rest, **options)


setattr(module, chosen["call"], failing)
"""
"""The `sitecustomize` of each process: the n-th call of one kind on the store's files fails."""


@dataclass(frozen=True, kw_only=True)
class Aftermath:
    """The outcome of a disturbed run.

    Attributes:
        seed: the seed of the disturbance.
        exit_code: of the disturbed run; if negative, the signal that ended it.
        torn: files that were unreadable afterwards.
        finished: utterances that were finished afterwards.
        lost: of these, those that were repeated or are missing.
        reruns: the number of reruns that completed the run.
        equal: whether leaderboard and rows equal those of the undisturbed run.
    """

    seed: int
    exit_code: int
    torn: int
    finished: int
    lost: int
    reruns: int
    equal: bool

    @property
    def survived(self) -> bool:
        """Whether nothing was lost and the result is the same."""
        return self.equal and not self.torn and not self.lost


@dataclass(frozen=True, kw_only=True)
class Kill(Aftermath):
    """The outcome of a run in which a process was killed.

    Attributes:
        victim: worker, flow or server.
        shards: the number that was finished at the kill.
        struck: whether the victim still existed.
    """

    victim: str
    shards: int
    struck: bool


@dataclass(frozen=True, kw_only=True)
class Error(Aftermath):
    """The outcome of a run with injected errors.

    Attributes:
        call: the kind of call: open, list, flush, link or name (rename).
        number: which of these calls failed in each process.
        error: the name of the error.
        failed: the number of failed calls in all processes.
    """

    call: str
    number: int
    error: str
    failed: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="the number of kills, with the victims in turn")
    parser.add_argument("--errors", type=int, default=21, help="the number of runs with injected errors")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the file of the results, JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="emtta-chaos-") as folder:
        suite = Path(folder) / "chaos.toml"
        suite.write_text(SUITE)
        reference_store = Path(folder) / "calm"
        emtta("run", suite, "--run-id", RUN, "--store", reference_store)
        expected = outcome(reference_store)
        kills, errors = [], []
        for seed in range(arguments.seed, arguments.seed + arguments.kills):
            kills.append(kill_once(seed, suite, Path(folder) / f"seed-{seed}", reference_store, expected))
            print(kills[-1], flush=True)
        for seed in range(arguments.seed, arguments.seed + arguments.errors):
            errors.append(inject_error(seed, suite, Path(folder) / f"errors-{seed}", reference_store, expected))
            print(errors[-1], flush=True)
    show(kills, errors)
    report = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    for name, outcomes in (("kills", kills), ("errors", errors)):
        if outcomes:  # results that were not measured again are kept
            report[name] = {
                **totals(outcomes),
                "load_average": os.getloadavg(),
                "each": [asdict(one) for one in outcomes],
            }
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    sys.exit(0 if all(one.survived for one in (*kills, *errors)) else 1)


def kill_once(seed: int, suite: Path, store: Path, reference_store: Path, expected: object) -> Kill:
    """Run the suite, kill a victim, finish the run, and check it."""
    chance = random.Random(seed)
    victim = list(VICTIMS)[seed % len(VICTIMS)]
    store.mkdir()
    shutil.copytree(reference_store / "prepared", store / "prepared")
    command = [*EMTTA, "run", str(suite), "--run-id", RUN, "--store", str(store)]
    # Otherwise, requests to a killed server are retried for minutes.
    environment = {"PREFECT_CLIENT_MAX_RETRIES": "1", **os.environ}
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True, env=environment
    )
    shards = chance.randrange(1, SHARDS)
    deadline = time.monotonic() + LIMIT
    while len(list((store / "scores").rglob("*.parquet"))) < shards and process.poll() is None:
        assert time.monotonic() < deadline, "the run does not get on"
        time.sleep(0.01)
    time.sleep(chance.uniform(0.0, 0.2))
    family = descendants(process.pid)
    targets = [process.pid] if victim == "flow" else [pid for pid in family if VICTIMS[victim] in command_of(pid)]
    targets = chance.sample(targets, min(1, len(targets)))
    was_running = process.poll() is None and bool(targets)
    done = len(list((store / "scores").rglob("*.parquet")))
    for pid in targets:
        kill(pid)
    code = process.wait(LIMIT)
    wait_for_workers(family)
    for pid in family:  # those that are left
        kill(pid)
    return Kill(victim=victim, shards=done, struck=was_running, **finish(seed, suite, store, code, expected))


def inject_error(seed: int, suite: Path, store: Path, reference_store: Path, expected: object) -> Error:
    """Run the suite with one failing call on the store's files in each process, finish the run, and check it."""
    chance = random.Random(f"errors {seed}")
    call = list(CALLS)[seed % len(CALLS)]
    number, error = chance.randrange(1, MAX_CALLS[call] + 1), chance.choice(ERRORS)
    shutil.copytree(reference_store / "prepared", store / "prepared")
    hook, marker = store.with_name(f"{store.name}-hook"), store.with_name(f"{store.name}-failed")
    hook.mkdir()
    marker.touch()
    (hook / "sitecustomize.py").write_text(FAILING)
    module, function = CALLS[call]
    chosen = {
        "module": module,
        "call": function,
        "number": number,
        "errno": error,
        "store": str(store),
        "sign": str(marker),
    }
    environment = {**os.environ, "PYTHONPATH": str(hook), "EMTTA_CHAOS": json.dumps(chosen)}
    command = [*EMTTA, "run", str(suite), "--run-id", RUN, "--store", str(store)]
    code = subprocess.run(command, capture_output=True, timeout=LIMIT, check=False, env=environment).returncode
    failed = len(marker.read_text())
    checks = finish(seed, suite, store, code, expected)
    return Error(call=call, number=number, error=errno.errorcode[error], failed=failed, **checks)


def finish(seed: int, suite: Path, store: Path, code: int, expected: object) -> dict[str, Any]:
    """Finish a run that ended with this exit code, and return the fields of its outcome."""
    torn = sum(not readable(path) for path in store.rglob("*.parquet"))
    finished_before = finished(store)
    reruns = 0
    while reruns < RERUNS and not (complete(store) and (reruns or not code)):  # a failed run is rerun, as a user would
        if RUN in Store.open(store).runs():
            emtta("rerun", RUN, "--store", store)
        else:  # it failed before it was recorded
            emtta("run", suite, "--run-id", RUN, "--store", store)
        reruns += 1
    finished_after = finished(store)
    lost = sum(finished_after.get(name) != attempt for name, attempt in finished_before.items())
    return {
        "seed": seed,
        "exit_code": code,
        "torn": torn,
        "finished": len(finished_before),
        "lost": lost,
        "reruns": reruns,
        "equal": outcome(store) == expected,
    }


def emtta(*arguments: object) -> None:
    """Run `emtta` and wait for it."""
    done = subprocess.run([*EMTTA, *map(str, arguments)], capture_output=True, timeout=LIMIT, check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(f"emtta {' '.join(map(str, arguments))} ended with {done.returncode}:\n{done.stderr.decode()}")


def complete(store: Path) -> bool:
    """Return whether the run is complete."""
    status = [*EMTTA, "status", RUN, "--store", str(store)]
    return subprocess.run(status, capture_output=True, check=False).returncode == 0


def finished(store: Path) -> dict[tuple[str, str], int]:
    """Return the finished utterances, with the attempt that finished each."""
    opened = Store.open(store)
    if RUN not in opened.runs():
        return {}
    found = {}
    for cell in load_run(opened, RUN).cells:
        done = opened.done(cell.key(RUN), cell.cell_id)
        found |= {(cell.name, name): row.hypothesis.attempt for name, row in done.items()}
    return found


def outcome(store: Path) -> object:
    """Return the leaderboard and all rows of the run, without times."""
    rows = (
        "SELECT domain, method, utterance_id, reference, hypothesis, errors, words FROM utterances "
        "WHERE run_id = $run_id ORDER BY ALL"
    )
    with Catalogue(Store.open(store)) as catalogue:
        return catalogue.report("leaderboard", RUN).rows, catalogue.query(rows, {"run_id": RUN}).rows


def readable(path: Path) -> bool:
    """Return whether a Parquet file can be read completely."""
    try:
        pq.read_table(path)
    except (OSError, pa.ArrowException):
        return False
    return True


def descendants(pid: int) -> list[int]:
    """Return all descendants of a process (Linux)."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:  # it has ended in the meantime
                continue
    found, generation = [], [pid]
    while generation:
        generation = [child for child, parent in parents.items() if parent in generation]
        found += generation
    return found


def command_of(pid: int) -> str:
    """Return a process's command line; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def wait_for_workers(family: list[int]) -> None:
    """Wait until the workers of a killed run have ended on their own."""
    deadline = time.monotonic() + 60
    while any(VICTIMS["worker"] in command_of(pid) for pid in family):
        assert time.monotonic() < deadline, "a worker outlives its owner"
        time.sleep(0.05)


def kill(pid: int) -> None:
    """Kill a process, if it exists."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def totals(outcomes: Sequence[Kill | Error]) -> dict[str, int]:
    """Return the sums over all kills, or over all errors."""
    return {
        "runs": len(outcomes),
        "strikes": sum(one.struck if isinstance(one, Kill) else one.failed for one in outcomes),
        "survived": sum(one.survived for one in outcomes),
        "rows_lost": sum(one.lost for one in outcomes),
        "files_torn": sum(one.torn for one in outcomes),
    }


def show(kills: list[Kill], errors: list[Error]) -> None:
    """Print each outcome, and the sums."""
    table = Table("seed", "victim", "shards done", "exit", "torn", "finished", "lost", "reruns", "equal")
    for one in kills:
        victim = one.victim if one.struck else f"{one.victim} (too late)"
        values = (one.seed, victim, one.shards, one.exit_code, one.torn, one.finished, one.lost, one.reruns, one.equal)
        table.add_row(*map(str, values))
    Console().print(table)
    table = Table("seed", "call", "number", "error", "failed", "exit", "torn", "finished", "lost", "reruns", "equal")
    for error in errors:
        chosen = (error.seed, error.call, error.number, error.error, error.failed)
        results = (error.exit_code, error.torn, error.finished, error.lost, error.reruns, error.equal)
        table.add_row(*map(str, (*chosen, *results)))
    Console().print(table)
    print(json.dumps({"kills": totals(kills), "errors": totals(errors)}))


if __name__ == "__main__":
    main()
