"""Adapt to packed real speech with only the engine: torch, transformers and numpy.

    PYTHONPATH=. python benchmarks/gpu_speech.py PIECES hypotheses.json --device cuda --seconds 240
    python benchmarks/real_speech.py SHARE OUT --hypotheses hypotheses.json    # at home, to compute the figures

PIECES is the output of `benchmarks/gpu_pack.py`. Each round runs every method on a few more utterances of every domain,
so that the results are balanced whenever the time ends; hypotheses are written after each round.
"""

import argparse
import hashlib
import io
import json
import tarfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from emtta_core.adaptation import Adapter
from emtta_core.audio.mix import mix
from emtta_core.audio.noise import synthesise
from emtta_core.model import SpeechModel, load_model

METHODS = ("source", "source-beam", "greedy-em", "em-seq", "em-tok", "em-tok-b")
ROUND = 16
"""The number of utterances per domain in a round."""


def main() -> None:
    """Unpack, adapt until the time limit, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pieces", type=Path, help="folder of the pieces")
    parser.add_argument("output", type=Path, help="file of the hypotheses, JSON")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", default="float32", choices=["float32", "tf32", "bf16"])
    parser.add_argument(
        "--seconds", type=float, default=240, help="start no round after this time (default: %(default)s)"
    )
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--candidates", type=int, default=16, help="G")
    parser.add_argument("--round", type=int, default=ROUND, help="utterances per domain in a round")
    options = parser.parse_args()
    started = time.monotonic()
    folder = unpack(options.pieces)
    model = load_model(folder / "model", device=options.device, precision=options.precision)
    utterances = json.loads((folder / "utterances.json").read_text(encoding="utf-8"))
    with np.load(folder / "speech.npz") as stored:
        recordings = {name: stored[name] for name in stored.files}
    rows: list[dict[str, Any]] = []
    for number, chosen in enumerate(rounds(utterances, options.round)):
        if time.monotonic() - started > options.seconds:
            print(f"the time limit was reached before round {number}: {len(rows)} results")
            break
        sounds = [waveform(one, recordings) for one in chosen]
        for method in METHODS:
            rows += adapted(model, method, chosen, sounds, options)
        options.output.write_text(json.dumps(rows) + "\n", encoding="utf-8")
        print(f"round {number}: {len(chosen)} utterances, {time.monotonic() - started:.0f} s")
    print(f"{len(rows)} results in {options.output}")


def unpack(pieces: Path) -> Path:
    """Join the pieces, verify them, and extract the archive next to them; missing pieces are named."""
    names = json.loads((pieces / "pieces.json").read_text(encoding="utf-8"))
    missing = [name for name in names if not (pieces / name).is_file()]
    if missing:
        raise SystemExit(f"{pieces} lacks {', '.join(missing)} of {len(names)} pieces; collect them first")
    content = b"".join((pieces / name).read_bytes() for name in names)
    begin = 0
    for name, expected in names.items():
        size = (pieces / name).stat().st_size
        if hashlib.sha256(content[begin : begin + size]).hexdigest() != expected:
            raise SystemExit(f"{pieces / name} is not as it was packed; carry it again")
        begin += size
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        tar.extractall(pieces / "unpacked", filter="data")
    return pieces / "unpacked"


def rounds(utterances: Sequence[Mapping[str, Any]], each: int) -> list[list[Mapping[str, Any]]]:
    """Split the utterances into rounds of at most `each` per domain, with the speakers in turn."""
    domains: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    turns: dict[tuple[str, str], int] = defaultdict(int)
    ordered = []
    for one in utterances:
        turns[one["domain"], one["speaker"]] += 1
        ordered.append((turns[one["domain"], one["speaker"]], one))
    for _, one in sorted(ordered, key=lambda pair: pair[0]):  # stable, so the order within a turn is kept
        domains[one["domain"]].append(one)
    longest = max(map(len, domains.values()))
    return [[one for own in domains.values() for one in own[begin : begin + each]] for begin in range(0, longest, each)]


def waveform(one: Mapping[str, Any], recordings: Mapping[str, NDArray[np.int16]]) -> NDArray[np.float32]:
    """Return an utterance's samples with its noise, rounded to 16 bits as in a run's preparation."""
    speech = recordings[one["recording"]].astype(np.float32) / 32768
    noise = one["noise"]
    if noise is None:
        return speech
    if noise["kind"] == "gaussian":
        sound = synthesise("gaussian", speech.size / 16_000, np.random.default_rng(one["seed"]))
    else:
        sound = recordings[f"noise/{noise['kind']}"].astype(np.float32) / 32768
    mixed = mix(speech, sound, noise["snr_db"], over=noise["snr_over"], level_dbfs=noise["level_dbfs"]).waveform
    return (np.minimum(np.rint(mixed * 32768), 32767) / 32768).astype(np.float32)


def adapted(
    model: SpeechModel,
    method: str,
    chosen: Sequence[Mapping[str, Any]],
    sounds: Sequence[NDArray[np.float32]],
    options: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Return a method's result rows for some utterances."""
    adapter = Adapter(
        model,
        method,
        trace="metrics",
        steps=options.steps,
        candidates=options.candidates,
        learning_rate=1e-3,
        weight_decay=0.0,
    )
    names = [one["utterance_id"] for one in chosen]  # the ids seed the random numbers, whatever the domain
    found = adapter.transcribe(sounds, [one["language"] for one in chosen], names)
    memory = torch.cuda.max_memory_allocated() / 1e6 if model.device.type == "cuda" else None
    columns = ("group", "domain", "utterance_id", "speaker", "language", "reference")
    return [
        {name: one[name] for name in columns}
        | {
            "method": method,
            "hypothesis": result.hypothesis,
            "error": result.error,
            "audio_seconds": sound.size / 16_000,
            "seconds": result.seconds,
            "memory_mb": memory,
        }
        for one, sound, result in zip(chosen, sounds, found, strict=True)
    ]


if __name__ == "__main__":
    main()
