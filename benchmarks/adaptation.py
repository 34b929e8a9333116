"""How fast the engine adapts, against two references in the same process.

    python benchmarks/adaptation.py demo                    # the demo model: G = 16, 10 steps, 16 utterances
    python benchmarks/adaptation.py base                    # Whisper-base's shape: G = 16, 24 tokens, 2 utterances
    python benchmarks/adaptation.py base-gpu large-gpu      # on a machine with a GPU
    python benchmarks/adaptation.py demo --sweep            # the engine alone, against steps, G and B

Ours, `plain` and `careful` (see references.py) run in turns; each row says the median of its runs. The engine decodes
the source and the final hypothesis, as the references do. Shapes other than the demo have random weights, and say 24
tokens for every candidate. Results are printed, and written to benchmarks/results/ as JSON.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import Cost, machine, matrix_peak, measure, operations
from numpy.typing import NDArray
from references import Reference
from rich.console import Console
from rich.table import Table
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)

from emtta_core.adaptation import Adapter, method
from emtta_core.model import SpeechModel
from emtta_core.model.load import from_transformers

RESULTS = Path(__file__).parent / "results"
RATE = 1e-3


@dataclass(frozen=True)
class Work:
    """What is adapted.

    Attributes:
        shape: of the random Whisper; None for the demo model.
        utterances: how many.
        candidates: G.
        steps: updates an utterance.
        device: where.
        references: which references to run.
        goal: what is to be reached against `careful`.
    """

    shape: dict[str, int] | None
    utterances: int
    candidates: int
    steps: int
    device: str
    references: tuple[str, ...]
    goal: float


BASE = {"d_model": 512, "heads": 8, "layers": 6, "mel": 80}
LARGE = {"d_model": 1280, "heads": 20, "layers": 32, "mel": 128}
WORKS = {
    "demo": Work(None, 16, 16, 10, "cpu", ("plain", "careful"), 6.0),
    "base": Work(BASE, 2, 16, 1, "cpu", ("plain", "careful"), 3.0),
    "base-gpu": Work(BASE, 64, 16, 10, "cuda", ("careful",), 50.0),
    "large-gpu": Work(LARGE, 16, 16, 10, "cuda", ("careful",), 10.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("works", nargs="*", default=["demo"], metavar="WORK", help=", ".join(WORKS))
    parser.add_argument("--method", default="em-tok-b", choices=["em-tok", "em-tok-b"])
    parser.add_argument("--repeat", type=int, default=3, help="runs of each, in turns")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--utterances", type=int, help="instead of the work's own")
    parser.add_argument("--steps", type=int, help="instead of the work's own")
    parser.add_argument("--sweep", action="store_true", help="the engine alone, against steps, G and B")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.works) - set(WORKS))
    if unknown:
        parser.error(f"unknown work {unknown[0]!r}; there are: {', '.join(WORKS)}")
    torch.set_num_threads(arguments.threads)
    for name in arguments.works:
        work = WORKS[name]
        report: dict[str, Any] = {"work": name, "method": arguments.method}
        if work.device == "cuda" and not torch.cuda.is_available():
            report["measured"] = "not measured: no GPU here"
            print(f"{name}: {report['measured']}")
        else:
            report |= (sweep if arguments.sweep else compare)(name, work, arguments)
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"adaptation-{name}{'-sweep' if arguments.sweep else ''}.json"
        path.write_text(json.dumps(report, indent=2) + "\n")


def compare(name: str, work: Work, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run ours and the references in turns."""
    network, model = load(work)
    steps, count = arguments.steps or work.steps, arguments.utterances or work.utterances
    waveforms = sounds(work, count)
    adapter = Adapter(
        model,
        arguments.method,
        steps=steps,
        candidates=work.candidates,
        learning_rate=RATE,
        batch_size=count,
        trace="metrics",
    )
    chosen = method(arguments.method)
    runs: dict[str, Callable[[], object]] = {"ours": partial(adapter.transcribe, waveforms)}
    for label in work.references:
        reference = Reference(model, network, chosen, encode_once=label == "careful")
        runs[label] = partial(reference.transcribe, waveforms, "en", steps=steps, candidates=work.candidates, rate=RATE)
    Adapter(model, arguments.method, steps=1, candidates=2).transcribe(waveforms[:1])  # warm up
    costs: dict[str, list[Cost]] = {label: [] for label in runs}
    for _ in range(arguments.repeat):
        for label, run in runs.items():
            costs[label].append(measure(run, model.device))
    flops, peak = operations(runs["ours"]), matrix_peak(model.device, model.precision.weights)
    audio = sum(len(waveform) for waveform in waveforms) / model.sample_rate
    rows = {label: summary(costs[label], count * steps, audio) for label in runs}
    rows["ours"]["peak_share"] = flops / rows["ours"]["seconds"] / peak
    for row in rows.values():
        row["ratio"] = row["seconds"] / rows["ours"]["seconds"]
        row["cpu_ratio"] = row["cpu_seconds"] / rows["ours"]["cpu_seconds"]
    show(name, work, rows, f"{count} utterances, G = {work.candidates}, {steps} steps")
    return {
        "machine": machine(model.device),
        "utterances": count,
        "candidates": work.candidates,
        "steps": steps,
        "repeat": arguments.repeat,
        "goal_against_careful": work.goal,
        "matrix_peak_flops": peak,
        "rows": rows,
    }


def sweep(name: str, work: Work, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the engine alone, with one of steps, G and B changed at a time."""
    _, model = load(work)
    base = {"steps": min(work.steps, 4), "candidates": 8, "batch_size": 8}
    settings = [base | {"steps": steps} for steps in (1, 2, 4, 8)]
    settings += [base | {"candidates": count} for count in (4, 8, 16, 32)]
    settings += [base | {"batch_size": size} for size in (1, 2, 4, 8, 16)]
    waveforms = sounds(work, 16)
    table = Table("steps", "G", "B", "ms an utterance-step", title=f"{name}, {arguments.method}")
    rows = []
    for setting in settings:
        adapter = Adapter(model, arguments.method, learning_rate=RATE, trace="metrics", **setting)
        run = partial(adapter.transcribe, waveforms)
        costs = [measure(run, model.device) for _ in range(arguments.repeat)]
        row = setting | summary(costs, len(waveforms) * setting["steps"], 0.0)
        rows.append(row)
        table.add_row(*(str(value) for value in setting.values()), f"{1000 * row['seconds_utterance_step']:.1f}")
    Console().print(table)
    return {"machine": machine(model.device), "rows": rows}


def summary(costs: list[Cost], updates: int, audio: float) -> dict[str, float]:
    """Return the numbers of one row."""
    seconds = statistics.median(cost.seconds for cost in costs)
    return {
        "seconds": seconds,
        "cpu_seconds": statistics.median(cost.cpu_seconds for cost in costs),
        "seconds_utterance_step": seconds / updates,
        "rtfx": audio / seconds,
        "peak_memory_bytes": max(cost.peak_bytes for cost in costs),
    }


def show(name: str, work: Work, rows: dict[str, dict[str, float]], title: str) -> None:
    """Print the comparison."""
    table = Table("", "s an utterance-step", "x ours", "x ours, CPU time", title=f"{name}: {title}")
    for column in ("RTFx", "peak memory", "of the peak"):
        table.add_column(column)
    for label, row in rows.items():
        table.add_row(
            label,
            f"{row['seconds_utterance_step']:.4f}",
            f"{row['ratio']:.1f}",
            f"{row['cpu_ratio']:.1f}",
            f"{row['rtfx']:.2f}",
            f"{row['peak_memory_bytes'] / 2**20:.0f} MiB",
            f"{100 * row['peak_share']:.0f} %" if "peak_share" in row else "",
        )
    Console().print(table)
    print(f"goal against careful: {work.goal:g} x")


def load(work: Work) -> tuple[Any, SpeechModel]:
    """Return a Whisper of the work's shape twice: as transformers has it, and as the engine does."""
    demo = str(resources.files("emtta_core.model") / "demo")
    tokenizer = WhisperTokenizer.from_pretrained(demo)
    if work.shape is None:
        network = WhisperForConditionalGeneration.from_pretrained(demo)
        extractor = WhisperFeatureExtractor.from_pretrained(demo)
    else:
        extractor = WhisperFeatureExtractor(feature_size=work.shape["mel"])
        network = random_whisper(work.shape)
    network = network.eval().to(work.device)
    return network, from_transformers(network, extractor, tokenizer, name="benchmark", device=work.device)


def random_whisper(shape: dict[str, int]) -> Any:
    """Return a Whisper of a shape with random weights, whose sequences never end of themselves."""
    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=shape["d_model"],
        encoder_layers=shape["layers"],
        decoder_layers=shape["layers"],
        encoder_attention_heads=shape["heads"],
        decoder_attention_heads=shape["heads"],
        encoder_ffn_dim=4 * shape["d_model"],
        decoder_ffn_dim=4 * shape["d_model"],
        num_mel_bins=shape["mel"],
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    network = WhisperForConditionalGeneration(config)
    end = 50257
    network.generation_config = GenerationConfig(
        decoder_start_token_id=50258,
        eos_token_id=end,
        pad_token_id=end,
        is_multilingual=True,
        lang_to_id={"<|en|>": 50259},
        task_to_id={"transcribe": 50359},
        no_timestamps_token_id=50363,
        suppress_tokens=[end],
        max_length=448,
    )
    return network


def sounds(work: Work, count: int) -> list[NDArray[np.float32]]:
    """Return synthetic speech of a strange accent for the demo; for random weights a second of noise, for 24 tokens."""
    if work.shape is not None:
        rng = np.random.default_rng(0)
        return [(0.1 * rng.standard_normal(16_000)).astype(np.float32) for _ in range(count)]
    from emtta_core.corpora.synthetic import Synthetic

    corpus = Synthetic(language="en", voices=("en-gb-scotland",), utterances=count)
    return [utterance.read() for utterance in corpus.read_all()]


if __name__ == "__main__":
    main()
