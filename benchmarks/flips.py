"""Count the sampled tokens that other vector instructions change: with emtta's noise, and with the inverse CDF.

    python benchmarks/flips.py                       # the demo model, and Whisper-base's shape
    python benchmarks/flips.py demo --draws 64

Two processes compute the same logits, one with the processor's best instructions, the other with `ATEN_CPU_CAPABILITY`
set to `--against`. Both sample with the same random numbers from the same contexts: those of the source model's greedy
hypotheses (with random weights: a second of noise, 24 tokens). A draw flips if the two processes sample different
tokens. The inverse of the cumulative distribution, the product's previous way of sampling, exists only here.
Also measures the cost of sampling: processor time for one position of G = 16 candidates, compared with the decoder's.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import console
from rich.table import Table
from torch import Tensor
from works import WORKS, load, sounds

from emtta_core.adaptation.episode import Batch, prepare_batch, source_parameters, split
from emtta_core.model import SpeechModel, forward
from emtta_core.model.candidates import Greedy, generate
from emtta_core.model.forward import Memory, Norms
from emtta_core.model.sampling import Noise, draw

RESULTS = Path(__file__).parent / "results" / "flips.json"
CANDIDATES = 16


def inverse_cdf(logits: Tensor, nodes: Tensor, uniform: Tensor) -> Tensor:
    """Sample as the product did before: the first token at which the cumulative probability exceeds the number."""
    cumulative = logits.softmax(-1).cumsum(-1)[nodes]
    largest = 1.0 - 2.0 * torch.finfo(logits.dtype).eps
    target = uniform.to(logits.dtype).clamp(max=largest).unsqueeze(-1) * cumulative[..., -1:]
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1).clamp_(max=logits.shape[-1] - 1)


def encode(model: SpeechModel, batch: Batch) -> tuple[Norms, Memory]:
    """Encode a batch with the source model."""
    norms = split(model.weights, source_parameters(model.weights, len(batch.ids)))
    encoded = forward.encode(model.weights, norms.encoder, batch.stem, batch.audible)
    return norms, forward.cross_memory(model.weights, encoded, batch.audible)


def child(name: str, utterances: int, draws: int, folder: Path, label: str) -> None:
    """Sample in this process, and write the tokens to `folder`; the first process also writes the contexts."""
    torch.set_num_threads(1)
    work = WORKS[name]
    _, model = load(work, "float32")
    waveforms = sounds(work, utterances)
    batch = prepare_batch(model, waveforms, ["en"] * utterances, [str(index) for index in range(utterances)])
    with torch.no_grad():
        norms, memory = encode(model, batch)
        contexts = folder / "contexts.pt"
        if not contexts.exists():
            (hypotheses,) = generate(
                model.weights, norms.decoder, memory, batch.prompt, model.policy, batch.limits, [Greedy()]
            )
            torch.save((hypotheses.tokens, hypotheses.mask), contexts)
        tokens, mask = torch.load(contexts)
        tree = forward.grow(batch.prompt, tokens, mask, dtype=model.weights.head.dtype)
        hidden = forward.decode(model.weights, norms.decoder, memory, tree.nodes, tree.visible)
        raw = forward.logits(model.weights, hidden.index_select(0, tree.contexts))
        masked = model.policy.mask_nodes(raw, tree.first)
        rng = np.random.default_rng(0)
        noise = Noise(torch.tensor([0]), draws, masked.shape[-1])
        before, after = [], []
        for position, row in enumerate(masked):
            nodes = torch.zeros(draws, dtype=torch.long)
            before.append(inverse_cdf(row[None], nodes, torch.from_numpy(rng.random(draws))))
            after.append(draw(row[None], nodes, noise.at(position)[0]))
        drawn = {"inverse CDF": torch.stack(before), "noise": torch.stack(after)}
        used = torch.backends.cpu.get_cpu_capability()
        costs = {str(count): cost(model, batch, count) for count in (1, 4)} if label == "here" else {}
    torch.save((masked, drawn, used, costs), folder / f"{label}.pt")


def cost(model: SpeechModel, batch: Batch, count: int) -> dict[str, float]:
    """Return milliseconds of processor time for one position of `count` utterances with G different candidates."""
    batch = batch.keep(torch.arange(count) % len(batch.ids))
    norms, memory = encode(model, batch)
    rows = count * CANDIDATES
    layout = forward.Layout.of(torch.full((count,), CANDIDATES), [CANDIDATES] * count)
    cache = forward.Cache.empty(model.weights, count, 4 + CANDIDATES)
    forward.prefill(model.weights, norms.decoder, memory, batch.prompt, cache)
    cached = ([layer.clone() for layer in cache.layers], cache.used, list(cache.sizes))
    vocabulary = len(model.weights.head)
    nodes = forward.Nodes(torch.arange(rows) % vocabulary, torch.full((rows,), 4), layout)
    found: list[Tensor] = []

    def decode() -> None:
        cache.layers, cache.used, cache.sizes = [layer.clone() for layer in cached[0]], cached[1], list(cached[2])
        slots = cache.reserve(layout)
        visible = torch.zeros((count, 1, CANDIDATES, cache.length))
        hidden = forward.decode(model.weights, norms.decoder, memory, nodes, visible, cache, slots)
        found[:] = [model.policy.mask_step(forward.logits(model.weights, hidden), first=False)]

    decode()
    masked, own = found[0], torch.arange(rows).view(count, CANDIDATES)
    keys, uniform = torch.arange(count), torch.rand(count, CANDIDATES, dtype=torch.float64)
    noise = Noise(keys, CANDIDATES, vocabulary)
    return {
        "decoder": milliseconds(decode),
        "inverse CDF": milliseconds(lambda: inverse_cdf(masked, own, uniform)),
        "noise": milliseconds(lambda: draw(masked, own, noise.at(1))),
    }


def milliseconds(run: Callable[[], Any], times: int = 9) -> float:
    """Return the median processor time of a call."""
    durations = []
    for _ in range(times):
        started = time.process_time()
        run()
        durations.append(1000 * (time.process_time() - started))
    return float(np.median(durations))


def compare(name: str, utterances: int, draws: int, against: str) -> dict[str, Any]:
    """Sample in two processes, and count the tokens that differ."""
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)
        for label, capability in (("here", None), ("there", against)):
            environment = os.environ | ({"ATEN_CPU_CAPABILITY": capability} if capability else {})
            words = [
                sys.executable,
                __file__,
                name,
                "--utterances",
                utterances,
                "--draws",
                draws,
                "--child",
                path,
                label,
            ]
            subprocess.run(list(map(str, words)), check=True, env=environment)
        masked, here, capability, costs = torch.load(folder / "here.pt")
        theirs, there, other, _ = torch.load(folder / "there.pt")
    finite = masked.isfinite()
    return {
        "processors": [capability, other],
        "contexts": len(masked),
        "vocabulary": masked.shape[1],
        "draws": here["noise"].numel(),
        "largest_logit_difference": float((masked - theirs)[finite].abs().max()),
        "flipped": {side: int((here[side] != there[side]).sum()) for side in here},
        "milliseconds_a_position": costs,
    }


def main() -> None:
    """Measure the workloads of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("works", nargs="*", default=["demo", "base"], help="demo, base; both by default")
    parser.add_argument("--against", default="avx2", help="the other process's ATEN_CPU_CAPABILITY; avx2")
    parser.add_argument("--utterances", type=int, default=4)
    parser.add_argument("--draws", type=int, default=256, help="draws per context; 256")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the file of the figures, JSON")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        folder, label = arguments.child
        child(arguments.works[0], arguments.utterances, arguments.draws, Path(folder), label)
        return
    figures = {}
    table = Table(title=f"draws flipped by ATEN_CPU_CAPABILITY={arguments.against}, and the cost of a position")
    for heading in ("model", "draws", "largest Δ logit", "flipped: CDF", "noise", "B", "ms: decoder", "CDF", "noise"):
        table.add_column(heading, justify="right")
    for name in arguments.works:
        found = figures[name] = compare(name, arguments.utterances, arguments.draws, arguments.against)
        flipped = found["flipped"]
        counts = [str(found["draws"]), f"{found['largest_logit_difference']:.1e}"]
        for count, taken in found["milliseconds_a_position"].items():
            times = [f"{taken[side]:.2f}" for side in ("decoder", "inverse CDF", "noise")]
            table.add_row(name, *counts, str(flipped["inverse CDF"]), str(flipped["noise"]), count, *times)
    arguments.output.write_text(json.dumps(figures, indent=2) + "\n")
    console().print(table)


if __name__ == "__main__":
    main()
