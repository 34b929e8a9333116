"""Kill what can be killed, at random moments, and see whether anything is lost.

    python benchmarks/chaos.py --kills 20

Each kill is a run of its own: `emtta run` on a small suite of the demo model, with worker processes and Prefect's own
server. At a moment drawn by the seed, between the first shard and the last, SIGKILL strikes a worker, the flow or the
server. Then: can each file be read? Is what was finished kept as it was? Does `emtta rerun` complete the run, and are
its leaderboard and its rows those of a run that nothing disturbed? Results are printed, and written to
benchmarks/results/.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from emtta_core.pipeline.run import load_run
from emtta_core.store import CellKey, Store
from emtta_core.store.catalogue import Catalogue

RESULTS = Path(__file__).parent / "results" / "chaos.json"
VICTIMS = {"worker": "emtta_core.worker", "flow": "", "server": "flows.prefect_server"}
RUN = "chaos"
EMTTA = (sys.executable, "-c", "from flows.cli.main import main; main()")
RERUNS = 3
LIMIT = 300.0
"""Seconds after which a command that should end by itself counts as hung."""

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
"""Of the whole run: two domains, two methods, eight utterances each, two a shard."""


@dataclass(frozen=True)
class Kill:
    """What became of a run that was struck.

    Attributes:
        seed: what the victim's moment was drawn by.
        victim: worker, flow or server.
        shards: that were done when it was struck.
        struck: whether the victim was there still.
        exit_code: of the run that was struck; negative: the signal that ended it.
        torn: files that could not be read afterwards.
        finished: utterances that were done afterwards.
        lost: of these, those that were done again or are gone.
        reruns: until the run was complete.
        equal: whether leaderboard and rows are those of the undisturbed run.
    """

    seed: int
    victim: str
    shards: int
    struck: bool
    exit_code: int
    torn: int
    finished: int
    lost: int
    reruns: int
    equal: bool

    @property
    def survived(self) -> bool:
        """Whether nothing is lost and the run came to the same."""
        return self.equal and not self.torn and not self.lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="how many, the victims in turns")
    parser.add_argument("--seed", type=int, default=0, help="of the first")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the results go, as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="emtta-chaos-") as folder:
        suite = Path(folder) / "chaos.toml"
        suite.write_text(SUITE)
        calm = Path(folder) / "calm"
        emtta("run", suite, "--run-id", RUN, "--store", calm)
        expected = outcome(calm)
        kills = []
        for seed in range(arguments.seed, arguments.seed + arguments.kills):
            kills.append(strike(seed, suite, Path(folder) / f"seed-{seed}", calm, expected))
            print(kills[-1], flush=True)
    show(kills)
    report = {"kills": [asdict(kill) for kill in kills], **totals(kills), "load_average": os.getloadavg()}
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    sys.exit(0 if all(kill.survived for kill in kills) else 1)


def strike(seed: int, suite: Path, store: Path, calm: Path, expected: object) -> Kill:
    """Run the suite, kill a victim, finish the run, and look."""
    chance = random.Random(seed)
    victim = list(VICTIMS)[seed % len(VICTIMS)]
    store.mkdir()
    shutil.copytree(calm / "prepared", store / "prepared")
    command = [*EMTTA, "run", str(suite), "--run-id", RUN, "--store", str(store)]
    environment = {"PREFECT_CLIENT_MAX_RETRIES": "1", **os.environ}  # or a lost server is asked for minutes
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
    struck = process.poll() is None and bool(targets)
    done = len(list((store / "scores").rglob("*.parquet")))
    for pid in targets:
        kill(pid)
    code = process.wait(LIMIT)
    wait_for_workers(family)
    for pid in family:  # what is left of it
        kill(pid)
    torn = sum(not readable(path) for path in store.rglob("*.parquet"))
    before = finished(store)
    reruns = 0
    while reruns < RERUNS and not (complete(store) and (reruns or not code)):  # who sees a run fail runs it again
        emtta("rerun", RUN, "--store", store)
        reruns += 1
    after = finished(store)
    lost = sum(after.get(name) != attempt for name, attempt in before.items())
    return Kill(seed, victim, done, struck, code, torn, len(before), lost, reruns, outcome(store) == expected)


def emtta(*arguments: object) -> None:
    """Run the command `emtta` to its end."""
    done = subprocess.run([*EMTTA, *map(str, arguments)], capture_output=True, timeout=LIMIT, check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(f"emtta {' '.join(map(str, arguments))} ended with {done.returncode}:\n{done.stderr.decode()}")


def complete(store: Path) -> bool:
    """Return whether the run has nothing left to do."""
    status = [*EMTTA, "status", RUN, "--store", str(store)]
    return subprocess.run(status, capture_output=True, check=False).returncode == 0


def finished(store: Path) -> dict[tuple[str, str, str], int]:
    """Return the utterances that are done, and the attempt that did each."""
    opened = Store.open(store)
    if RUN not in opened.runs():
        return {}
    found = {}
    for cell in load_run(opened, RUN).cells:
        done = opened.done(CellKey(RUN, cell.domain, cell.method), cell.cell_id)
        found |= {(cell.domain, cell.method, name): row.hypothesis.attempt for name, row in done.items()}
    return found


def outcome(store: Path) -> object:
    """Return the leaderboard and all rows of the run, but for times."""
    rows = (
        "SELECT domain, method, utterance_id, reference, hypothesis, errors, words FROM utterances "
        "WHERE run_id = $run_id ORDER BY ALL"
    )
    with Catalogue(Store.open(store)) as catalogue:
        return catalogue.report("leaderboard", RUN).rows, catalogue.query(rows, {"run_id": RUN}).rows


def readable(path: Path) -> bool:
    """Return whether all of a Parquet file can be read."""
    try:
        pq.read_table(path)
    except (OSError, pa.ArrowException):
        return False
    return True


def descendants(pid: int) -> list[int]:
    """Return the processes that a process started, and they, and so on (Linux)."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:  # it has ended meanwhile
                continue
    found, front = [], [pid]
    while front:
        front = [child for child, parent in parents.items() if parent in front]
        found += front
    return found


def command_of(pid: int) -> str:
    """Return a process's command line; nothing of one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def wait_for_workers(family: list[int]) -> None:
    """Wait until the workers of a run that was killed have ended by themselves."""
    deadline = time.monotonic() + 60
    while any(VICTIMS["worker"] in command_of(pid) for pid in family):
        assert time.monotonic() < deadline, "a worker outlives its owner"
        time.sleep(0.05)


def kill(pid: int) -> None:
    """End a process, if it is there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def totals(kills: list[Kill]) -> dict[str, int]:
    """Return the sums over all kills."""
    return {
        "kills_made": sum(kill.struck for kill in kills),
        "kills_survived": sum(kill.survived for kill in kills),
        "rows_lost": sum(kill.lost for kill in kills),
        "files_torn": sum(kill.torn for kill in kills),
    }


def show(kills: list[Kill]) -> None:
    """Print what became of each, and the sums."""
    table = Table("seed", "victim", "shards done", "exit", "torn", "finished", "lost", "reruns", "equal")
    for one in kills:
        victim = one.victim if one.struck else f"{one.victim} (too late)"
        values = (one.seed, victim, one.shards, one.exit_code, one.torn, one.finished, one.lost, one.reruns, one.equal)
        table.add_row(*map(str, values))
    Console().print(table)
    print(json.dumps(totals(kills)))


if __name__ == "__main__":
    main()
