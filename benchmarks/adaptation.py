"""Measure how fast the engine adapts, against two references in the same process.

    python benchmarks/adaptation.py demo                    # the demo model: G = 16, 10 steps, 16 utterances
    python benchmarks/adaptation.py base                    # Whisper-base's shape: G = 16, 24 tokens, 2 utterances
    python benchmarks/adaptation.py base-gpu large-gpu      # on a machine with a GPU
    python benchmarks/adaptation.py base-gpu --check        # the same code at a tiny shape, on the CPU, in seconds
    python benchmarks/adaptation.py demo --sweep            # only the engine, varying steps, G, B and more
    python benchmarks/adaptation.py demo --profile          # where the engine spends its time

The engine ("ours"), `plain` and `careful` (see references.py) run in turn; each row gives the medians of its runs. The
engine decodes the source and the final hypothesis, as the references do. Shapes other than the demo have random
weights, and every candidate has 24 tokens. Results are printed, and written to benchmarks/results/ as JSON. Requires
torch, transformers, numpy and rich; on a machine without the rest of emtta, add the repository's root to PYTHONPATH.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import (
    Cost,
    MemoryWarnings,
    console,
    limit_memory,
    load_average,
    machine,
    matrix_peak,
    medians,
    operations,
    profile,
    timed,
)
from numpy.typing import NDArray
from references import Reference
from rich.table import Table
from sweep import sweep
from works import TINY, TINY_AXES, WORKS, Work, load, sounds, spread

from emtta_core.adaptation import Adapter, method
from emtta_core.adaptation.batch_size import AUTO, BatchSizeChoice
from emtta_core.errors import UsageError
from emtta_core.faults import is_out_of_memory
from emtta_core.model import SpeechModel
from emtta_core.model.weights import PRECISIONS

Waveform = NDArray[np.float32]
RESULTS = Path(__file__).parent / "results"
RATE = 1e-3
NO_GPU = "not measured: no GPU here"
COUNTED = 4
"""The number of utterances on which a reference's operations are counted; one, if all are alike."""


def main() -> None:
    """Measure the workloads of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("works", nargs="*", default=["demo"], metavar="WORK", help=", ".join(WORKS))
    parser.add_argument("--method", default="em-tok-b", choices=["em-tok", "em-tok-b"])
    parser.add_argument("--repeat", type=at_least_one, default=3, help="runs of each, in turn")
    parser.add_argument("--threads", type=at_least_one, default=2, help="CPU threads")
    parser.add_argument("--check", action="store_true", help="a tiny shape and size, on the CPU by default")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--sweep", action="store_true", help="only the engine, varying one parameter at a time")
    kind.add_argument("--profile", action="store_true", help="print where the engine spends its time, over two steps")
    own = parser.add_argument_group("instead of the workload's")
    own.add_argument("--precision", choices=list(PRECISIONS))
    own.add_argument("--device", help="cpu, cuda, cuda:1, …")
    own.add_argument("--utterances", type=at_least_one)
    own.add_argument("--steps", type=at_least_one)
    own.add_argument("--candidates", type=at_least_one, help="G")
    own.add_argument("--batch-size", type=batch_size, help="utterances in a batch, or auto")
    own.add_argument("--references", nargs="*", choices=["plain", "careful"], help="the references to run")
    own.add_argument("--reference-utterances", type=at_least_one, help="the number that the references adapt to")
    parser.add_argument("--spare-memory", type=float, metavar="GIB", help="memory to leave free, besides the models")
    parser.add_argument("--output", type=Path, help="folder of the JSON files; required to write any with --check")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.works) - set(WORKS))
    if unknown:
        parser.error(f"unknown workload {unknown[0]!r}; choose from: {', '.join(WORKS)}")
    fixed = ["utterances", "steps", "candidates", "batch_size", "references", "reference_utterances", "spare_memory"]
    idle = [f"--{name.replace('_', '-')}" for name in fixed if arguments.sweep and getattr(arguments, name) is not None]
    if idle:
        parser.error(f"{idle[0]} has no place in a sweep, which has its own sizes; omit it")
    torch.set_num_threads(arguments.threads)
    try:
        for name in arguments.works:
            work = chosen(WORKS[name], arguments)
            for precision in work.precisions:
                report = run(name, work, precision, arguments)
                if report is not None:
                    write(report, arguments)
    except UsageError as error:
        parser.error(str(error))


def chosen(work: Work, arguments: argparse.Namespace) -> Work:
    """Apply the command line's settings to a workload."""
    if arguments.check:
        tiny: dict[str, Any] = {
            "utterances": 4,
            "candidates": 4,
            "steps": 2,
            "reference_utterances": 2,
            "device": "cpu",
        }
        shape = work.shape and replace(TINY, mel=work.shape.mel)
        work = replace(work, **tiny, shape=shape, axes=TINY_AXES)
    fields = ("device", "utterances", "steps", "candidates", "batch_size", "references", "reference_utterances")
    overrides: dict[str, Any] = {
        field: getattr(arguments, field) for field in fields if getattr(arguments, field) is not None
    }
    if arguments.precision:
        overrides["precisions"] = (arguments.precision,)
    return replace(work, **overrides)


def run(name: str, work: Work, precision: str, arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Measure a workload in one precision, and return its report; None for a profile."""
    report: dict[str, Any] = {"work": name, "method": arguments.method, "check": arguments.check}
    if work.device.startswith("cuda") and not torch.cuda.is_available():
        print(f"{name}, {precision}: {NO_GPU}")
        rows = {label: {"not_measured": NO_GPU} for label in ("ours", *work.references)}
        return report | {"measured": False, "precision": precision, "rows": rows}
    if arguments.check and precision == "tf32" and not work.device.startswith("cuda"):
        report["note"] = "tf32 is a GPU's arithmetic; checked in float32"
        precision = "float32"
    if arguments.profile:
        print(profiled(work, precision, arguments.method))
        return None
    if arguments.sweep:
        print(f"{name}, {arguments.method}, {precision}")
        found = sweep(work, precision, arguments.method, arguments.repeat, RATE)
    else:
        found = compare(name, work, precision, arguments)
    return report | {"measured": True} | found


@dataclass
class Contestant:
    """The engine or a reference.

    Attributes:
        adapt: maps waveforms to their texts.
        indices: indices of the utterances that it is measured on.
        costs: the costs of its runs.
        texts: the texts of its last run.
        failure: why it could not be measured, if it could not.
    """

    adapt: Callable[[Sequence[Waveform]], list[str]]
    indices: Sequence[int]
    costs: list[Cost] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    failure: str | None = None

    def run(self, waveforms: Sequence[Waveform], device: torch.device) -> None:
        """Adapt once to its share of the waveforms, unless it ran out of memory before."""
        if self.failure:
            return
        try:
            cost, self.texts = timed(partial(self.adapt, [waveforms[index] for index in self.indices]), device)
            self.costs.append(cost)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            self.failure = "not measured: out of memory"


def compare(name: str, work: Work, precision: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the engine and the references in turn."""
    network, model = load(work, precision)
    device, facts = model.device, machine(model.device)
    peak = matrix_peak(device, model.precision)
    if arguments.spare_memory:
        limit_memory(device, arguments.spare_memory)
    waveforms = sounds(work, work.utterances)
    adapter = engine(model, work, arguments.method)
    ours = Contestant(partial(texts, adapter), range(len(waveforms)))
    contestants = {"ours": ours}
    for label in work.references:
        reference = Reference(model, network, method(arguments.method), encode_once=label == "careful")
        adapt = partial(reference.transcribe, language="en", steps=work.steps, candidates=work.candidates, rate=RATE)
        contestants[label] = Contestant(adapt, spread(waveforms, work.reference_utterances))
    with MemoryWarnings() as warnings:
        if device.type == "cuda":  # a complete run each, to load the kernels and find a batch size that fits
            for contestant in contestants.values():
                contestant.run(waveforms, device)
                contestant.costs.clear()
        else:
            texts(engine(model, replace(work, steps=1, candidates=2), arguments.method), waveforms[:1])
        for _ in range(arguments.repeat):
            for contestant in contestants.values():
                contestant.run(waveforms, device)
        rows = rows_of(contestants, waveforms, work, model)
    rows["ours"] |= {"batch_size": adapter.batch_size, "out_of_memory": warnings.messages}
    if method(arguments.method).candidates == "beam":  # sampled candidates differ
        for label in work.references:
            rows[label]["texts"] = agreement(ours, contestants[label])
    facts["load_average_after"] = load_average()
    report = {
        "precision": precision,
        "machine": facts,
        "utterances": work.utterances,
        "seconds_of_audio": sum(len(waveform) for waveform in waveforms) / model.sample_rate,
        "candidates": work.candidates,
        "steps": work.steps,
        "batch_size": work.batch_size,
        "spare_memory_gib": arguments.spare_memory,
        "repeat": arguments.repeat,
        "goal_against_careful": None if arguments.check else work.goal,
        "goal_peak_share": None if arguments.check else work.peak_goal,
        "matrix_peak": asdict(peak),
        "rows": rows,
    }
    finish(report, on_cpu=device.type == "cpu")
    show(f"{name}, {arguments.method}, {precision}", report)
    return report


def engine(model: SpeechModel, work: Work, name: str) -> Adapter:
    """Return the engine's adapter."""
    return Adapter(
        model,
        name,
        steps=work.steps,
        candidates=work.candidates,
        learning_rate=RATE,
        batch_size=work.batch_size,
        trace="metrics",
    )


def texts(adapter: Adapter, waveforms: Sequence[Waveform]) -> list[str]:
    """Return the engine's hypotheses.

    Raises:
        MemoryError: if one of them does not fit in memory.
    """
    results = adapter.transcribe(waveforms)
    for result in results:
        if result.error and "out of memory" in result.error:
            raise MemoryError(result.error)
    return [result.hypothesis for result in results]


def rows_of(
    contestants: Mapping[str, Contestant], waveforms: Sequence[Waveform], work: Work, model: SpeechModel
) -> dict[str, dict[str, Any]]:
    """Return each contestant's costs, and its operations, counted in a separate run."""
    rows: dict[str, dict[str, Any]] = {}
    for label, contestant in contestants.items():
        if contestant.failure:
            rows[label] = {"not_measured": contestant.failure}
            continue
        subset = [waveforms[index] for index in contestant.indices]
        counted = subset
        if label != "ours":  # processes one at a time, so a few are representative
            counted = [subset[index] for index in spread(subset, COUNTED if work.shape is None else 1)]
        flops = operations(partial(contestant.adapt, counted)) / len(counted) / work.steps
        audio = sum(len(waveform) for waveform in subset) / model.sample_rate
        rows[label] = {"utterances": len(subset), **medians(contestant.costs)}
        for clock in ("seconds", "cpu_seconds"):
            rows[label][f"{clock}_utterance_step"] = rows[label][clock] / len(subset) / work.steps
        rows[label] |= {
            "rtfx": audio / rows[label]["seconds"],
            "operations_utterance_step": flops,
            "operations_counted_on": len(counted),
        }
    return rows


def finish(report: dict[str, Any], *, on_cpu: bool) -> None:
    """Add derived values to a report's rows: shares of the peak, and ratios to ours."""
    clocks = {"seconds": ("peak_share", "wall", "ratio"), "cpu_seconds": ("cpu_peak_share", "cpu", "cpu_ratio")}
    measured = {label: row for label, row in report["rows"].items() if "not_measured" not in row}
    for row in measured.values():
        for clock, (share, peak, ratio) in clocks.items():
            utterance_step = row[f"{clock}_utterance_step"]
            if on_cpu or clock == "seconds":  # a GPU's operations use no processor time
                row[share] = row["operations_utterance_step"] / utterance_step / report["matrix_peak"][peak]
                row[ratio] = (
                    utterance_step / measured["ours"][f"{clock}_utterance_step"] if "ours" in measured else None
                )


def agreement(ours: Contestant, other: Contestant) -> dict[str, Any] | None:
    """Return how many of a reference's texts equal ours, and those that differ.

    Beam search is deterministic, so texts differ only where rounding decides a near-tie between two tokens.
    """
    if ours.failure or other.failure:
        return None
    pairs = [(ours.texts[index], text) for index, text in zip(other.indices, other.texts, strict=True)]
    different = [{"ours": our_text, "theirs": their_text} for our_text, their_text in pairs if our_text != their_text]
    return {"equal": len(pairs) - len(different), "of": len(pairs), "different": different}


def show(title: str, report: Mapping[str, Any]) -> None:
    """Print the comparison."""
    sizes = f"{report['utterances']} utterances, G = {report['candidates']}, {report['steps']} steps"
    table = Table("", title=f"{title}: {sizes}")
    for column in ("on", "s/step", "CPU", "x ours", "CPU", "RTFx", "memory", "of peak", "CPU", "texts equal"):
        table.add_column(column, justify="right", no_wrap=True)
    for label, row in report["rows"].items():
        if "not_measured" in row:
            table.add_row(label, row["not_measured"])
            continue
        equal = row.get("texts")
        table.add_row(
            label,
            str(row["utterances"]),
            f"{row['seconds_utterance_step']:.4f}",
            f"{row['cpu_seconds_utterance_step']:.4f}",
            figure(row["ratio"], "{:.1f}"),
            figure(row.get("cpu_ratio"), "{:.1f}"),
            f"{row['rtfx']:.2f}",
            f"{row['peak_memory_bytes'] / 2**20:.0f} MiB",
            figure(row["peak_share"], "{:.0%}"),
            figure(row.get("cpu_peak_share"), "{:.0%}"),
            f"{equal['equal']} of {equal['of']}" if equal else "",
        )
    console().print(table)
    print("on: utterances; s/step: seconds per utterance and step; CPU: the same in processor time")
    ours = report["rows"]["ours"]
    if "not_measured" not in ours:
        print(f"ours: {ours['batch_size']} in a batch; out of memory {len(ours['out_of_memory'])} times")
    if report["goal_against_careful"]:
        share = f", {report['goal_peak_share']:.0%} of the peak" if report["goal_peak_share"] else ""
        print(f"goal: {report['goal_against_careful']:g} x against careful{share}")
    print("load average: {load_average} before, {load_average_after} after".format(**report["machine"]))


def figure(value: float | None, form: str) -> str:
    """Format a number for the table; empty for None."""
    return "" if value is None else form.format(value)


def profiled(work: Work, precision: str, name: str) -> str:
    """Return the profile of a short run of the engine, after a warm-up."""
    _, model = load(work, precision)
    waveforms = sounds(work, work.utterances)
    adapter = engine(model, replace(work, steps=min(work.steps, 2)), name)
    texts(adapter, waveforms)
    return profile(partial(texts, adapter, waveforms), model.device)


def write(report: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Write a report, unless it would replace measurements with "not measured"."""
    folder = arguments.output or (None if arguments.check else RESULTS)
    if folder is None:
        return
    kind = ("-sweep" if arguments.sweep else "") + ("-check" if arguments.check else "")
    path = folder / f"adaptation-{report['work']}-{report['precision']}{kind}.json"
    if not report["measured"] and path.exists() and json.loads(path.read_text())["measured"]:
        print(f"{path} was measured elsewhere, and is kept")
        return
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")


def at_least_one(text: str) -> int:
    """Parse a whole number of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is too small; give a whole number of at least 1")
    return value


def batch_size(text: str) -> BatchSizeChoice:
    """Parse a batch size."""
    return "auto" if text == AUTO else at_least_one(text)


if __name__ == "__main__":
    main()
