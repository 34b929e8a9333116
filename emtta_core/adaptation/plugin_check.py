"""A quick check of a new method: whether it keeps utterances apart, is deterministic and finite, and learns."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from emtta_core.adaptation.adapter import Adapter
from emtta_core.adaptation.methods import Method
from emtta_core.adaptation.options import Options
from emtta_core.adaptation.results import AdaptationResult
from emtta_core.errors import EmttaError
from emtta_core.model.speech_model import Model

TOLERANCE = 1e-6
"""For numbers that should be equal in float64 but are summed in a different order."""

OPTIONS = Options(steps=2, candidates=4)
"""The options that a method is checked with."""

SECONDS = (1.0, 2.4, 0.7)
"""The waveforms' durations, which differ so that a batch pads them."""

# The numbers of a step in the order of their computation, and the part that each comes from.
_ORIGINS = {
    "candidate_tokens": "candidates",
    "candidate_entropy": "candidates",
    "loss": "objective",
    "gradient_norm": "objective",
}


def check_method(
    model: Model, method: Method, waveforms: Sequence[NDArray[np.float32]] = (), language: str = "en"
) -> list[str]:
    """Try a method with plug-ins on a few utterances: in one batch, again, and each alone.

    Args:
        model: in float64, so that differences are meaningful, such as `load_model("demo", precision="float64")`.
        method: the method to try.
        waveforms: three or more, of different lengths; none: noise that swells and fades.
        language: the language spoken in them.

    Returns:
        The faults found, one sentence each.
    """
    spoken = list(waveforms) or [_noise(seconds, model.sample_rate) for seconds in SECONDS]
    ids = [f"utterance-{number}" for number in range(len(spoken))]

    def adapt(chosen: Sequence[int]) -> list[AdaptationResult]:
        adapter = Adapter(model, method, OPTIONS, batch_size=len(chosen))
        return adapter.transcribe([spoken[i] for i in chosen], language, [ids[i] for i in chosen])

    try:
        together = adapt(range(len(spoken)))
        repeated = adapt(range(len(spoken)))
        separately = [result for number in range(len(spoken)) for result in adapt([number])]
    except EmttaError as error:
        return [str(error)]
    broken = [f"{result.utterance_id}: {result.error}" for result in together if result.error is not None]
    if broken:
        return broken[:1]
    last = "adapter" if method.adapter else "decision"
    faults = _differences(together, repeated, 0.0, "when repeated", last)
    if not faults:  # an unseeded method would differ here, too
        faults = _differences(separately, together, TOLERANCE, "in a batch: it mixes utterances", last)
    norms = [record.gradient_norm for result in together for record in result.trace if record.gradient_norm is not None]
    if norms and not any(norms):
        faults.append("objective: its gradient is zero at every step of every utterance, so nothing is learned")
    return faults


def _differences(
    before: Sequence[AdaptationResult], after: Sequence[AdaptationResult], tolerance: float, when: str, last: str
) -> list[str]:
    # The first number, or else the text, of the first utterance that differs, and the part it comes from.
    for one, other in zip(before, after, strict=True):
        for left, right in zip(one.trace, other.trace, strict=False):
            for name, part in _ORIGINS.items():
                values = getattr(left, name), getattr(right, name)
                if not _close(*values, tolerance):
                    where = f"{name} of {one.utterance_id} at step {left.step}"
                    return [f"{part}: {where} is {values[0]}, but {values[1]} {when}"]
        texts = one.hypothesis, other.hypothesis
        if texts[0] != texts[1]:
            return [f"{last}: the hypothesis of {one.utterance_id} is {texts[0]!r}, but {texts[1]!r} {when}"]
        if not _close(one.entropy_after, other.entropy_after, tolerance):
            return [f"parameters: entropies of {one.utterance_id} after the last step differ {when}"]
    return []


def _close(left: float | None, right: float | None, tolerance: float) -> bool:
    if left is None or right is None:
        return left is right
    return math.isclose(left, right, rel_tol=tolerance, abs_tol=tolerance) or (math.isnan(left) and math.isnan(right))


def _noise(seconds: float, rate: int) -> NDArray[np.float32]:
    generator = np.random.default_rng(round(1000 * seconds))
    time = np.arange(round(seconds * rate)) / rate
    loudness = 0.1 * (1 + np.sin(2 * np.pi * 3 * time))
    return (loudness * generator.standard_normal(len(time))).astype(np.float32)
