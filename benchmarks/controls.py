"""Measure what decoding gains, and what adaptation gains beyond it, on three draws of the suite `demo`'s sentences.

    python benchmarks/controls.py --store controls-store            # run it again to resume
    python benchmarks/controls.py --store controls-store --results  # without a run

Each draw (`corpus.seed` 0, 1 and 2) is evaluated by `emtta run` with and without adaptation, decoded greedily and by
beam search. A gate (`adapt_above`) and a fallback (`revert`) are measured as variants of em-tok-b. The gate's threshold
is the one of `THRESHOLDS` with the lowest WER on draw 0; draws 1 and 2 show what it is worth. To choose it, gates are
computed from the rows of source and em-tok-b; only the chosen one is run. A WER is the mean of the 23 domains' WERs;
a difference has the interval and the test of `emtta compare`. Results are printed as Markdown, and written to
benchmarks/results/controls.json.
"""

import argparse
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from measure import machine

from emtta_core.model import load_model
from emtta_core.pipeline.run import plan_run
from emtta_core.scoring.paired import Sample
from emtta_core.store import Catalogue, Store
from emtta_core.suite import Suite, load_suite
from emtta_core.suite.composed_methods import MethodChoice

RESULTS = Path(__file__).parent / "results" / "controls.json"
DRAWS = (0, 1, 2)
ADAPTED = "em-tok-b"
METHODS: tuple[Any, ...] = (
    "source",
    "source-beam",
    ADAPTED,
    f"{ADAPTED}+beam",
    {"name": f"{ADAPTED}-revert", "base": ADAPTED, "adaptation": {"revert": True}},
)
GATED = f"{ADAPTED}-gated"
THRESHOLDS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
"""Nats per token; the source's mean entropy on the demo is about 0.3."""

AGAINST = {"source-beam": "source", ADAPTED: "source-beam", f"{ADAPTED}+beam": "source-beam"}
"""The method that each is compared with; for others, em-tok-b."""

Row = Mapping[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, required=True, help="the folder of the store; created if missing")
    parser.add_argument("--limit", type=int, help="utterances per domain")
    parser.add_argument("--results", action="store_true", help="only print results, without a run")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    suites = {draw: suite(draw, METHODS, arguments.limit) for draw in DRAWS}
    if not arguments.results:
        run(suites, arguments.store)
    first = rows_of(suites[0], arguments.store)
    gates = {threshold: wer_behind_gate(first, threshold) for threshold in THRESHOLDS}
    chosen = min(sorted(gates, reverse=True), key=lambda threshold: gates[threshold])
    gated = {"name": GATED, "base": ADAPTED, "adaptation": {"adapt_above": chosen}}
    suites = {draw: suite(draw, (*METHODS, gated), arguments.limit) for draw in DRAWS}
    if not arguments.results:
        run(suites, arguments.store)
    found = {
        draw: figures(chosen_suite, rows_of(chosen_suite, arguments.store)) for draw, chosen_suite in suites.items()
    }
    report = {
        "machine": machine(torch.device("cpu")),
        "gates_on_draw_0": {str(threshold): wer for threshold, wer in gates.items()},
        "adapt_above": chosen,
        "draws": {str(draw): rows for draw, rows in found.items()},
    }
    show(report)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def suite(draw: int, methods: Sequence[Any], limit: int | None) -> Suite:
    """Return the suite `demo` with these methods, on one draw of its sentences."""
    demo = load_suite("demo", limit=limit)
    domains = [
        domain.model_copy(update={"corpus": domain.corpus.model_copy(update={"seed": draw})}) for domain in demo.domains
    ]
    choices = tuple(MethodChoice.model_validate(method) for method in methods)
    return demo.model_copy(update={"name": f"controls-{draw}", "methods": choices, "domains": tuple(domains)})


def run(suites: Mapping[int, Suite], store: Path) -> None:
    """Evaluate the suites; cells that other runs have finished are reused."""
    store.mkdir(parents=True, exist_ok=True)
    for draw, chosen in suites.items():
        path = store / f"controls-{draw}.toml"
        path.write_text(chosen.to_toml(), encoding="utf-8")
        subprocess.run(["emtta", "run", str(path), "--store", str(store)], check=True)


def rows_of(chosen: Suite, store: Path) -> list[Row]:
    """Return the scored utterances of a suite's run."""
    query = """
        SELECT method, domain, "group", utterance_id, speaker, errors, words, entropy_before, flags,
               (SELECT max(step) FROM steps AS s WHERE s.run_id = u.run_id AND s.domain = u.domain
                AND s.method = u.method AND s.utterance_id = u.utterance_id) AS updates
        FROM utterances AS u WHERE run_id = $run AND error IS NULL ORDER BY domain, utterance_id
    """
    run_id = plan_run(chosen, load_model("demo").digest).run_id
    with Catalogue(Store.open(store)) as catalogue:
        return list(catalogue.query(query, {"run": run_id}).records)


def by_utterance(rows: Sequence[Row], method: str) -> dict[tuple[str, str], Row]:
    """Return a method's rows by domain and utterance."""
    return {(row["domain"], row["utterance_id"]): row for row in rows if row["method"] == method}


def wer_behind_gate(rows: Sequence[Row], threshold: float) -> float:
    """Return the WER of em-tok-b if utterances with at most this entropy keep the source's hypothesis."""
    source, adapted = by_utterance(rows, "source"), by_utterance(rows, ADAPTED)
    gated = {key: row if row["entropy_before"] > threshold else source[key] for key, row in adapted.items()}
    return compare(list(source.values()), list(gated.values())).change(domains_of(rows)).wer_b


def domains_of(rows: Sequence[Row], group: str | None = None) -> list[str]:
    """Return the domains of the rows, or of one group."""
    return list(dict.fromkeys(row["domain"] for row in rows if group in (None, row["group"])))


def compare(before: Sequence[Row], after: Sequence[Row]) -> Sample:
    """Pair the rows of two methods, which must have the same utterances in the same order."""
    counts = [(one["errors"], other["errors"], one["words"]) for one, other in zip(before, after, strict=True)]
    columns = ([row[name] for row in before] for name in ("domain", "utterance_id", "speaker"))
    return Sample(*columns, counts)


def figures(chosen: Suite, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return each method's WERs, and its difference from the method that it is compared with."""
    found = []
    for choice in chosen.methods:
        own = by_utterance(rows, choice.name)
        reference = AGAINST.get(choice.name, "source" if choice.name == "source" else ADAPTED)
        other = by_utterance(rows, reference)
        sample = compare([other[key] for key in own], list(own.values()))
        change = sample.change(domains_of(rows))
        flags = [flag for row in own.values() for flag in row["flags"]]
        found.append(
            {
                "method": choice.name,
                "wer": change.wer_b,
                "groups": {group: sample.change(domains_of(rows, group)).wer_b for group in chosen.groups},
                "against": reference,
                "difference": change.difference,
                "interval": (change.low, change.high),
                "p": change.p,
                "updates": sum(row["updates"] or 0 for row in own.values()) / len(own),
                "gated": flags.count("gated") / len(own),
                "reverted": flags.count("reverted") / len(own),
            }
        )
    return found


def show(report: Mapping[str, Any]) -> None:
    """Print the tables as Markdown."""
    print("| adapt_above | WER on draw 0 |\n| ---: | ---: |")
    for threshold, wer in report["gates_on_draw_0"].items():
        print(f"| {threshold} | {wer:.2f} |")
    for draw, rows in report["draws"].items():
        groups = list(rows[0]["groups"])
        print(f"\nDraw {draw}\n\n| method | {' | '.join(groups)} | all | against | difference (95 %) | p | updates |")
        print("| --- |" + " ---: |" * (len(groups) + 1) + " --- | ---: | ---: | ---: |")
        for row in rows:
            low, high = row["interval"]
            compared = f"{row['difference']:+.2f} ({low:+.2f} to {high:+.2f})" if low or high else "0"
            wers = " | ".join(f"{row['groups'][group]:.2f}" for group in groups)
            cost = f"{row['p']:.3f} | {row['updates']:.1f}"
            print(f"| {row['method']} | {wers} | {row['wer']:.2f} | {row['against']} | {compared} | {cost} |")


if __name__ == "__main__":
    main()
