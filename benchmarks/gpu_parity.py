"""Compare a device with the CPU: the demo model adapts to the demo's speech in each precision.

    PYTHONPATH=. python benchmarks/gpu_parity.py parity.json --device cuda

Everything is compared with float32 on the CPU: the number of equal final texts, and the maximum difference of the mean
entropies of the first and last states, in nats per token. Rounding errors grow over the updates, and may decide between
two almost equally probable beams; tests on the CPU show how float32 differs from float64.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import speech
import torch

from emtta_core.adaptation import Adapter
from emtta_core.adaptation.results import AdaptationResult
from emtta_core.model import load_model

METHODS = ("source", "source-beam", "greedy-em", "em-tok-b", "em-tok")


def main() -> None:
    """Compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="file of the figures, JSON")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", action="append", help="repeatable; float32, tf32 and bf16 by default")
    parser.add_argument("--utterances", type=int, default=speech.UTTERANCES)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--candidates", type=int, default=8, help="G")
    options = parser.parse_args()
    rows = []
    for method in METHODS:
        expected = results("cpu", "float32", method, options)
        for precision in options.precision or ["float32", "tf32", "bf16"]:
            rows.append(compared(expected, results(options.device, precision, method, options)))
            rows[-1] |= {"method": method, "device": options.device, "precision": precision}
            print(rows[-1])
    device_name = torch.cuda.get_device_name() if options.device.startswith("cuda") else "CPU"
    options.output.write_text(
        json.dumps({"device": device_name, "torch": torch.__version__, "rows": rows}, indent=1) + "\n", encoding="utf-8"
    )


def results(device: str, precision: str, method: str, options: argparse.Namespace) -> list[AdaptationResult]:
    """Adapt to the demo's speech on a device, in a precision."""
    adapter = Adapter(
        load_model("demo", device=device, precision=precision),
        method,
        steps=options.steps,
        candidates=options.candidates,
        trace="metrics",
    )
    sounds = speech.read(options.utterances)
    return adapter.transcribe(sounds, "en", [str(index) for index in range(len(sounds))])


def compared(expected: list[AdaptationResult], found: list[AdaptationResult]) -> dict[str, Any]:
    """Count the equal texts, and return the maximum differences of the entropies."""
    errors = [one.error for one in (*expected, *found) if one.error is not None]
    if errors:
        raise SystemExit(f"{len(errors)} utterances are in error; the first: {errors[0]}")
    pairs = list(zip(expected, found, strict=True))
    return {
        "utterances": len(pairs),
        "source_texts_equal": sum(one.source_hypothesis == other.source_hypothesis for one, other in pairs),
        "texts_equal": sum(one.hypothesis == other.hypothesis for one, other in pairs),
        "entropy_before": max(abs(one.entropy_before - other.entropy_before) for one, other in pairs),
        "entropy_after": max(abs(one.entropy_after - other.entropy_after) for one, other in pairs),
    }


if __name__ == "__main__":
    main()
