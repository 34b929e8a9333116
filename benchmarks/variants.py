"""Measure the accuracy and cost of variants of the methods, on the 23 synthetic domains of the suite `demo`.

    python benchmarks/variants.py --store variants-store            # run it again to resume
    python benchmarks/variants.py --store variants-store --results  # of the finished domains, without a run
    python benchmarks/variants.py --store more --seed 1 --methods em-tok-b em-tok-b-stop-0.003   # on other sentences

Runs `emtta run` once in float32 and once in bf16, with suite files that it writes into the store. A WER is the mean of
the domains' WERs. A difference is from the variant's reference on the same utterances, with the interval and the test
of `emtta compare`, in which a sentence that several domains share counts once. Processor time is measured separately,
on 16 utterances of one voice, in turn. Results are printed as Markdown and, for all methods and seed 0, written to
benchmarks/results/variants.json.
"""

import argparse
import json
import statistics
import subprocess
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import machine
from numpy.typing import NDArray

from emtta_core.adaptation import Adapter
from emtta_core.adaptation.options import Trace
from emtta_core.corpora.synthetic import Synthetic
from emtta_core.model import load_model
from emtta_core.pipeline.run import plan_run
from emtta_core.scoring.paired import Sample
from emtta_core.store import Catalogue, Store
from emtta_core.suite import Suite, load_suite
from emtta_core.suite.composed_methods import MethodChoice

RESULTS = Path(__file__).parent / "results"
METHODS = """
methods = [
    "source",
    "em-tok",
    { name = "em-tok-again", base = "em-tok" },
    { name = "em-tok-to-go", base = "em-tok", credit = "to-go" },
    { name = "em-tok-no-baseline", base = "em-tok", baseline = "none" },
    { name = "em-tok-sequence", base = "em-tok", normalization = "sequence" },
    "em-tok-b",
    { name = "em-tok-b-to-go", base = "em-tok-b", credit = "to-go" },
    { name = "em-tok-b-no-baseline", base = "em-tok-b", baseline = "none" },
    { name = "em-tok-b-sequence", base = "em-tok-b", normalization = "sequence" },
    { name = "em-tok-b-encoder", base = "em-tok-b", parameters = "encoder-layernorm" },
    { name = "em-tok-b-decoder", base = "em-tok-b", parameters = "decoder-layernorm" },
    "mbr",
    { name = "mbr-64", base = "mbr", adaptation = { candidates = 64 } },
    { name = "mbr-400", base = "mbr", adaptation = { candidates = 400 } },
    "em-tok-b+mbr",
    { name = "em-tok-b-stop-0.003", base = "em-tok-b", adaptation = { early_stop = 0.003 } },
    { name = "em-tok-b-stop-0.01", base = "em-tok-b", adaptation = { early_stop = 0.01 } },
    { name = "em-tok-b-stop-0.03", base = "em-tok-b", adaptation = { early_stop = 0.03 } },
    { name = "em-tok-b-3-steps", base = "em-tok-b", adaptation = { steps = 3 } },
    { name = "em-tok-b-7-steps", base = "em-tok-b", adaptation = { steps = 7 } },
]
"""
"""In float32; 400 samples cost about as much as the ten updates of em-tok-b."""

BF16 = ("source", "em-tok", "em-tok-b")
REFERENCES = {"mbr-64": "source", "mbr-400": "source", "em-tok-b+mbr": "em-tok-b"}
"""The method that each is compared with, if that is not its base, or else the source."""

TRACES: tuple[Trace, ...] = ("none", "metrics", "hypotheses")

Scored = dict[tuple[str, str], tuple[str, int, int]]
"""By domain and utterance: speaker, word errors and words."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True, help="the folder of the store; created if missing")
    parser.add_argument("--results", action="store_true", help="only print results, without a run")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the sentences")
    parser.add_argument("--methods", nargs="+", help="only these, in float32; they must include their references")
    parser.add_argument("--repeat", type=int, default=3, help="number of measurements of processor time")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    precisions = ("float32",) if arguments.methods else ("float32", "bf16")
    suites = {precision: suite(precision, arguments.seed, arguments.methods or ()) for precision in precisions}
    if not arguments.results:
        for precision, chosen in suites.items():
            path = arguments.store / f"variants-{precision}.toml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(chosen.to_toml(), encoding="utf-8")
            subprocess.run(["emtta", "run", str(path), "--store", str(arguments.store)], check=True)
    rows: list[dict[str, Any]] = []
    with Catalogue(Store.open(arguments.store)) as catalogue:
        digest = load_model("demo").digest
        runs = {name: plan_run(chosen, digest).run_id for name, chosen in suites.items()}
        found = whole({name: scored(catalogue, run_id) for name, run_id in runs.items()}, suites)
        for precision, chosen in suites.items():
            made = updates(catalogue, runs[precision])
            for choice in chosen.methods:
                rows.append(quality(choice, precision, found, chosen) | {"updates": made[choice.name]})
    for row, seconds in zip(rows, costs(suites, arguments.repeat), strict=True):
        row["cpu_seconds_utterance"] = seconds
    first = next(iter(found["float32"].values()))
    report = {
        "machine": machine(torch.device("cpu")),
        "utterances": len(first),
        "domains": list(dict.fromkeys(domain for domain, _ in first)),
        "rows": rows,
        "trace_cpu_seconds_utterance": trace_costs(arguments.repeat),
    }
    show(rows, report["trace_cpu_seconds_utterance"])
    if not arguments.methods and not arguments.seed:
        (RESULTS / "variants.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def suite(precision: str, seed: int, methods: Sequence[str]) -> Suite:
    """Return the suite `demo` with all or some methods of the sweep, and with other sentences for another seed."""
    demo = load_suite("demo")
    written = tomllib.loads(METHODS)["methods"] if precision == "float32" else BF16
    every = [MethodChoice.model_validate(method) for method in written]
    domains = [
        domain.model_copy(update={"corpus": domain.corpus.model_copy(update={"seed": seed})}) for domain in demo.domains
    ]
    changes: dict[str, Any] = {
        "name": f"variants-{precision}",
        "methods": tuple(choice for choice in every if not methods or choice.name in methods),
        "domains": tuple(domains),
        "model": demo.model.model_copy(update={"precision": precision}),
        "runtime": demo.runtime.model_copy(update={"trace": "metrics", "batch_size": "auto", "workers": 1}),
    }
    return demo.model_copy(update=changes)


def scored(catalogue: Catalogue, run_id: str) -> dict[str, Scored]:
    """Return the scored utterances of each method of a run."""
    query = """
        SELECT method, domain, utterance_id, speaker, errors, words
        FROM utterances WHERE run_id = $run AND error IS NULL ORDER BY domain, utterance_id
    """
    found: dict[str, Scored] = {}
    for method, domain, utterance, speaker, errors, words in catalogue.query(query, {"run": run_id}).rows:
        found.setdefault(method, {})[domain, utterance] = (speaker, errors, words)
    return found


def whole(found: Mapping[str, dict[str, Scored]], suites: Mapping[str, Suite]) -> dict[str, dict[str, Scored]]:
    """Return the utterances of domains that are complete for every method of every suite."""
    cells = {
        (precision, choice.name, domain.name): sum(
            name == domain.name for name, _ in found[precision].get(choice.name, {})
        )
        for precision, chosen in suites.items()
        for choice in chosen.methods
        for domain in chosen.domains
    }
    most = max(cells.values())
    short = {domain for (*_, domain), count in cells.items() if count < most}
    return {
        precision: {
            method: {key: one for key, one in own.items() if key[0] not in short} for method, own in methods.items()
        }
        for precision, methods in found.items()
    }


def updates(catalogue: Catalogue, run_id: str) -> dict[str, float]:
    """Return the mean number of updates per utterance, by method."""
    query = """
        SELECT method, avg(made) FROM (
            SELECT method, max(step) AS made FROM steps WHERE run_id = $run GROUP BY method, domain, utterance_id
        ) GROUP BY method
    """
    return {method: float(made) for method, made in catalogue.query(query, {"run": run_id}).rows}


def quality(
    choice: MethodChoice, precision: str, found: Mapping[str, dict[str, Scored]], chosen: Suite
) -> dict[str, Any]:
    """Return a variant's WER, overall and by group, and its difference from its reference."""
    name = choice.name
    own = found[precision][name]
    if precision == "float32":
        reference = REFERENCES.get(name, choice.base or "source")
        label, other = name, found["float32"].get(reference, own)
    else:
        label, reference, other = f"{name}, {precision}", name, found["float32"][name]
    sample = Sample(
        [domain for domain, _ in own],
        [utterance for _, utterance in own],
        [speaker for speaker, *_ in own.values()],
        [(other[key][1], errors, words) for key, (_, errors, words) in own.items()],
    )
    of_group = {
        group: [domain.name for domain in chosen.domains if domain.group == group and domain.name in sample.domains]
        for group in chosen.groups
    }
    change = sample.change(sample.domains)
    return {
        "label": label,
        "method": name,
        "precision": precision,
        "wer": change.wer_b,
        "groups": {group: sample.change(domains).wer_b for group, domains in of_group.items() if domains},
        "reference": reference,
        "difference": change.difference,
        "interval": (change.low, change.high),
        "p": change.p,
        "units": change.units,
    }


def costs(suites: Mapping[str, Suite], repeat: int) -> list[float]:
    """Return the processor seconds per utterance of each variant, in the order of the suites."""
    waveforms = sounds()
    runs = []
    for precision, chosen in suites.items():
        model = load_model("demo", device="cpu", precision=precision)
        for choice in chosen.methods:
            options = asdict(choice.adapted(chosen.adaptation))
            runs.append(partial(Adapter(model, choice.method(), trace="metrics", **options).transcribe, waveforms))
    return in_turns(runs, len(waveforms), repeat)


def trace_costs(repeat: int) -> dict[str, float]:
    """Return the processor seconds per utterance of em-tok-b with each kind of trace."""
    model, waveforms = load_model("demo", device="cpu"), sounds()
    runs = [partial(Adapter(model, "em-tok-b", trace=trace).transcribe, waveforms) for trace in TRACES]
    return dict(zip(TRACES, in_turns(runs, len(waveforms), repeat), strict=True))


def sounds() -> list[NDArray[np.float32]]:
    """Return 16 utterances of one voice that the model was not trained on."""
    corpus = Synthetic(language="en", voices=("en-gb-scotland",), utterances=16)
    return [utterance.read() for utterance in corpus.read_all()]


def in_turns(runs: Sequence[partial[Any]], utterances: int, repeat: int) -> list[float]:
    """Return the median processor seconds per utterance of each run."""
    seconds = [[busy(run) for run in runs] for _ in range(repeat)]
    return [statistics.median(column) / utterances for column in zip(*seconds, strict=True)]


def busy(run: partial[Any]) -> float:
    """Return the processor seconds of one run."""
    began = time.process_time()
    run()
    return time.process_time() - began


def show(rows: Sequence[Mapping[str, Any]], traces: Mapping[str, float]) -> None:
    """Print the tables as Markdown."""
    groups = list(rows[0]["groups"])
    print(f"| method | {' | '.join(groups)} | all | against | difference (95 %) | p | updates | CPU s per utterance |")
    print("| --- |" + " ---: |" * (len(groups) + 1) + " --- | ---: | ---: | ---: | ---: |")
    for row in rows:
        low, high = row["interval"]
        compared = f"{row['difference']:+.2f} ({low:+.2f} to {high:+.2f})" if low or high else "0"
        figures = " | ".join(f"{row['groups'][group]:.2f}" for group in groups)
        p = f"{row['p']:.3f}"
        cost = f"{row['updates']:.1f} | {row['cpu_seconds_utterance']:.2f}"
        print(f"| {row['label']} | {figures} | {row['wer']:.2f} | {row['reference']} | {compared} | {p} | {cost} |")
    print("\n| trace | CPU s per utterance |\n| --- | ---: |")
    for trace, seconds in traces.items():
        print(f"| {trace} | {seconds:.3f} |")


if __name__ == "__main__":
    main()
