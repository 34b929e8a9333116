"""A corruption raises the recogniser's WER more, the higher its severity."""

import numpy as np
import pytest

from emtta_core.adaptation import Adapter
from emtta_core.audio.corruption import Graded
from emtta_core.audio.effects import CORRUPTIONS
from emtta_core.corpora.synthetic import voices_for_noise
from emtta_core.model import load_model
from emtta_core.scoring import word_errors
from emtta_core.suite import load_suite

HOPELESS = 70.0
"""A WER in % above which comparisons say little; the demo model was never trained on speech at 8 kHz."""


@pytest.mark.slow
def test_source_wer_grows_with_severity() -> None:
    """The mean WER rises with each severity; each corruption is worse at 5 than at 1, unless 1 is already hopeless."""
    spoken = [(one.id, one.text, one.read()) for one in load_suite("robustness").domains[0].corpus.read_all()]
    adapter, voices = Adapter(load_model("demo"), method="source"), voices_for_noise(8, 0)
    rates = np.zeros((len(CORRUPTIONS), 5))
    for row, name in enumerate(CORRUPTIONS):
        for severity in range(1, 6):
            graded = Graded(name=name, severity=severity)
            corrupted = [graded.apply(speech, key, lambda count: voices[:count]).waveform for key, _, speech in spoken]
            keys = [key for key, *_ in spoken]
            results = adapter.transcribe(corrupted, language=["en"] * len(corrupted), utterance_ids=keys)
            scores = [word_errors(one[1], result.hypothesis, "en") for one, result in zip(spoken, results, strict=True)]
            rates[row, severity - 1] = 100 * sum(s.errors for s in scores) / sum(s.words for s in scores)
    print(*(f"{name} {np.round(row, 1)}" for name, row in zip(CORRUPTIONS, rates, strict=True)), sep="\n")
    assert (np.diff(rates.mean(axis=0)) > 0).all(), rates.mean(axis=0)
    lost = rates[:, 0] > HOPELESS
    assert {name for name, no_room in zip(CORRUPTIONS, lost, strict=True) if no_room} <= {"telephone", "g711", "gsm"}
    assert ((rates[:, 4] > rates[:, 0]) | lost).all(), rates
