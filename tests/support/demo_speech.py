"""Speech of the suite `demo`, prepared as in a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from emtta_core.audio.files import read_audio
from emtta_core.pipeline.plan import corpus_id
from emtta_core.pipeline.preparation import prepare_domain
from emtta_core.store import Store
from emtta_core.suite import load_suite


@dataclass(frozen=True)
class DemoSpeech:
    """Utterances of several domains.

    Attributes:
        waveforms: one per utterance, at 16 kHz.
        languages: one per utterance.
        ids: one per utterance, prefixed with its domain.
        transcripts: one per utterance.
    """

    waveforms: list[NDArray[np.float32]]
    languages: list[str]
    ids: list[str]
    transcripts: list[str]


def prepare(folder: Path, domains: Sequence[str], each: int) -> DemoSpeech:
    """Prepare the first `each` utterances of some domains in a store at `folder`."""
    suite, store = load_suite("demo"), Store.open(folder, create=True)
    speech = DemoSpeech([], [], [], [])
    for name in domains:
        domain = suite.domain(name)
        corpus = prepare_domain(domain, corpus_id(domain, each), store, each).corpus
        for row in store.read_prepared(corpus):
            assert row.audio is not None
            speech.waveforms.append(np.ascontiguousarray(read_audio(row.audio.bytes, name=row.utterance_id)))
            speech.languages.append(row.language)
            speech.ids.append(f"{name}/{row.utterance_id}")
            speech.transcripts.append(row.text)
    return speech
