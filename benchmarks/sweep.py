"""Sweeps of the engine, varying one parameter at a time: the cost of a step, a candidate, a batch or a trace.

Cost should be linear in steps and in G, and the time per utterance flat or falling in B. A line is fitted to the first
two; the third gives the largest B up to which the time per utterance rises by no more than `TOLERANCE` per size.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Self

from measure import Cost, Fit, MemoryWarnings, console, load_average, machine, medians, timed
from rich.table import Table
from works import Work, load, sounds

from emtta_core.adaptation import Adapter
from emtta_core.model import SpeechModel, candidates

TOLERANCE = 0.05
"""The share by which the time per utterance may rise from one B to the next and still count as flat."""

EARLY_STOPS = (None, 0.003, 0.01, 0.03)
"""Nats per token: an episode leaves the batch when its entropy changes by at most this."""

COMPACTIONS = (0.0, 0.5, 0.75, 1.0)
"""Shares of utterances still growing at which the token loop drops the others: never, …, at once."""


def sweep(work: Work, precision: str, method: str, repeat: int, rate: float) -> dict[str, Any]:
    """Run every setting `repeat` times, in turn, and return the rows of each sweep and their fits."""
    _, model = load(work, precision)
    facts = machine(model.device)
    settings = [(name, value, setting) for name, group in groups(work).items() for value, setting in group]
    runs: list[list[Run]] = [[] for _ in settings]
    Run.of(settings[0][-1], model, work, method, rate)  # warm up
    for _ in range(repeat):
        for (_, _, setting), done in zip(settings, runs, strict=True):
            done.append(Run.of(setting, model, work, method, rate))
    clock = "cpu_seconds" if model.device.type == "cpu" else "seconds"
    sweeps: dict[str, Any] = {}
    for (name, value, setting), done in zip(settings, runs, strict=True):
        count, made = utterances(work, setting), done[0].updates
        row: dict[str, Any] = {"value": value, **setting, "utterances": count, "updates": made}
        row |= {"halved": max(one.halved for one in done), **medians([one.cost for one in done])}
        for kind in ("seconds", "cpu_seconds"):
            row[f"{kind}_utterance"] = row[kind] / count
            row[f"{kind}_utterance_step"] = row[kind] / count / made
        sweeps.setdefault(name, {"rows": []})["rows"].append(row)
    for name, result in sweeps.items():
        result |= shape_of(name, result["rows"], clock)
        show(name, result)
    facts["load_average_after"] = load_average()
    return {"machine": facts, "precision": model.precision.name, "repeat": repeat, "clock": clock, "sweeps": sweeps}


@dataclass(frozen=True)
class Run:
    """A run with one setting.

    Attributes:
        cost: its cost.
        updates: the mean number of updates per utterance.
        halved: how often the batch was halved because memory ran out.
    """

    cost: Cost
    updates: float
    halved: int

    @classmethod
    def of(cls, setting: Mapping[str, Any], model: SpeechModel, work: Work, method: str, rate: float) -> Self:
        """Adapt once with this setting."""
        waveforms = sounds(work, utterances(work, setting))
        options = {name: value for name, value in setting.items() if name != "compaction"}
        adapter = Adapter(model, method, learning_rate=rate, **options)
        with MemoryWarnings() as warnings, compaction(setting.get("compaction", candidates.COMPACTION)):
            cost, results = timed(partial(adapter.transcribe, waveforms), model.device)
        return cls(cost, sum(result.updates for result in results) / len(results), len(warnings.messages))


def groups(work: Work) -> dict[str, list[tuple[Any, dict[str, Any]]]]:
    """Return each sweep's settings, with the value that distinguishes each."""
    axes = work.axes
    base = {
        "steps": axes.steps[-2],
        "candidates": axes.candidates[1],
        "batch_size": axes.batch_sizes[len(axes.batch_sizes) // 2],
        "trace": "metrics",
    }
    varied: dict[str, Sequence[Any]] = {
        "steps": axes.steps,
        "candidates": axes.candidates,
        "batch_size": axes.batch_sizes,
        "trace": ("none", "metrics", "hypotheses"),
    }
    made = {name: [(value, base | {name: value}) for value in values] for name, values in varied.items()}
    if work.shape is None:  # with random weights, all episodes are alike and all sequences have the same length
        long = base | {"steps": axes.steps[-1]}
        made["early_stop"] = [(value, long | {"early_stop": value}) for value in EARLY_STOPS]
        made["compaction"] = [(value, base | {"compaction": value}) for value in COMPACTIONS]
    return made


def utterances(work: Work, setting: Mapping[str, Any]) -> int:
    """Return the number of utterances for a setting."""
    return max(work.axes.utterances, int(setting["batch_size"]))


@contextmanager
def compaction(share: float) -> Iterator[None]:
    """Make the token loop drop ended utterances at this share of those still growing."""
    before = candidates.COMPACTION
    candidates.COMPACTION = share
    try:
        yield
    finally:
        candidates.COMPACTION = before


def shape_of(name: str, rows: Sequence[dict[str, Any]], clock: str) -> dict[str, Any]:
    """Return how the cost depends on the varied parameter, with a sentence about it."""
    values = [row["value"] for row in rows]
    if name == "batch_size":
        times = [row[f"{clock}_utterance"] for row in rows if not row["halved"]]
        if not times:
            return {"says": "memory did not suffice for any B"}
        flat = 1
        while flat < len(times) and times[flat] <= (1 + TOLERANCE) * times[flat - 1]:
            flat += 1
        return {
            "flat_or_falling_up_to": values[flat - 1],
            "says": f"time an utterance is flat or falls up to B = {values[flat - 1]}; memory sufficed up to "
            f"{values[len(times) - 1]} of {values[-1]}",
        }
    if name not in ("steps", "candidates"):
        return {}
    per, what = ("utterance", "step") if name == "steps" else ("utterance_step", "candidate")
    fit = Fit.of(values, [row[f"{clock}_{per}"] for row in rows])
    each = f"ms an {per.replace('_', '-')}"
    return {
        "fit": {"of": f"{clock}_{per}", **asdict(fit)},
        "says": f"one more {what}: {1000 * fit.slope:.2f} {each}, beside {1000 * fit.intercept:.2f}; R² = {fit.r2:.4f}",
    }


def show(name: str, result: Mapping[str, Any]) -> None:
    """Print a sweep: times per utterance, and per utterance and update."""
    table = Table(title=f"against {name}")
    table.add_column("", no_wrap=True)
    for column in ("steps", "G", "B", "updates", "ms/utt", "ms/step", "CPU ms/step", "memory"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in result["rows"]:
        table.add_row(
            str(row["value"]),
            *(str(row[field]) for field in ("steps", "candidates", "batch_size")),
            f"{row['updates']:.1f}",
            f"{1000 * row['seconds_utterance']:.1f}",
            f"{1000 * row['seconds_utterance_step']:.1f}",
            f"{1000 * row['cpu_seconds_utterance_step']:.1f}",
            f"{row['peak_memory_bytes'] / 2**20:.0f} MiB",
        )
    console().print(table)
    if "says" in result:
        print(result["says"])
