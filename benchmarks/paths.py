"""Measure how much longer the generic path takes than the fast one, for each method, on the same model and speech.

    python benchmarks/paths.py                       # the demo model, eight utterances
    python benchmarks/paths.py --utterances 4 --steps 3 --method em-tok-b

Both run in turn in this process, on one thread: the demo as a model of its family, with utterances in a batch, and the
same weights through transformers, one utterance at a time. The table also shows how many transcripts are equal.
"""

import argparse
import statistics
import time

import torch
from measure import console
from rich.table import Table
from works import WORKS, sounds

from emtta_core.adaptation import Adapter
from emtta_core.model import load_model

METHODS = ("source", "source-beam", "mbr", "greedy-em", "em-tok", "em-tok-b", "em-tok-b+beam")


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--candidates", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=3, help="runs of each path, in turn; the median counts")
    parser.add_argument("--method", action="append", choices=METHODS, help="only this one; several are possible")
    options = parser.parse_args()
    torch.set_num_threads(1)
    models = {path: load_model("demo", device="cpu", family=family) for path, family in PATHS.items()}
    waveforms = sounds(WORKS["demo"], options.utterances)
    settings = {"steps": options.steps, "candidates": options.candidates, "trace": "metrics"}

    table = Table(title=f"seconds per utterance: {options.utterances} utterances, {settings}, 1 thread")
    for heading in ("method", *PATHS, "ratio", "same texts"):
        table.add_column(heading, justify="right")
    for method in options.method or METHODS:
        seconds: dict[str, list[float]] = {path: [] for path in PATHS}
        texts: dict[str, list[str]] = {}
        for _ in range(options.repeat):
            for path, model in models.items():
                started = time.perf_counter()
                results = Adapter(model, method, **settings).transcribe(waveforms)
                seconds[path].append((time.perf_counter() - started) / len(waveforms))
                texts[path] = [result.hypothesis for result in results]
        fast, generic = (statistics.median(runs) for runs in seconds.values())
        same = sum(one == other for one, other in zip(*texts.values(), strict=True))
        table.add_row(method, f"{fast:.3f}", f"{generic:.3f}", f"{generic / fast:.1f}", f"{same} of {len(waveforms)}")
    console().print(table)


PATHS = {"fast": None, "generic": "transformers"}
"""Each path, with the family that loads a model for it."""

if __name__ == "__main__":
    main()
