"""`redraw = false` keeps the candidates of the first step; AdamW uses the constants in the options."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from whisper_factory import make_checkpoint, sounds

from emtta_core.adaptation import Adapter, method
from emtta_core.adaptation.episode import candidate_loss, prepare_batch, run, source_parameters, split
from emtta_core.adaptation.options import Options
from emtta_core.model import SpeechModel, forward, load_model
from emtta_core.model.beam_search import BeamSearch
from emtta_core.model.candidates import generate

SECONDS = (1.0, 2.4, 0.7)
IDS = ("a", "b", "c")
STEPS, CANDIDATES, RATE, DECAY, BETAS, EPSILON = 4, 3, 1e-2, 0.05, (0.7, 0.95), 1e-4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> SpeechModel:
    return load_model(make_checkpoint(tmp_path_factory.mktemp("checkpoint")), device="cpu", precision="float64")


@pytest.fixture(scope="module")
def waveforms() -> list[NDArray[np.float32]]:
    return sounds(SECONDS)


def test_every_step_reuses_candidates(model: SpeechModel, waveforms: list[NDArray[np.float32]]) -> None:
    options = Options(STEPS, CANDIDATES, RATE, DECAY, betas=BETAS, epsilon=EPSILON, redraw=False)
    batch = prepare_batch(model, waveforms, ["en"] * len(IDS), IDS)
    states, found = run(model, method("em-tok-b"), options, batch, trace="metrics")
    weights = model.weights
    expected = source_parameters(weights, len(IDS)).requires_grad_()
    optimizer = torch.optim.AdamW([expected], lr=RATE, betas=BETAS, eps=EPSILON, weight_decay=DECAY)
    kept = None
    for state in states[:-1]:
        norms = split(weights, expected)
        memory = forward.cross_memory(
            weights, forward.encode(weights, norms.encoder, batch.stem, batch.audible), batch.audible
        )
        if kept is None:
            beams = [BeamSearch(CANDIDATES)]
            (kept,) = generate(weights, norms.decoder, memory, batch.prompt, model.policy, batch.limits, beams)
        loss, _ = candidate_loss(model, method("em-tok-b"), norms, memory, batch.prompt, kept)
        (expected.grad,) = torch.autograd.grad(loss.total.sum(), expected)
        optimizer.step()
        assert state.update is not None
        torch.testing.assert_close(state.update.candidate_tokens, kept.mask.sum(-1).double().mean(-1))
    torch.testing.assert_close(found, expected.detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["greedy-em", "em-tok", "em-tok-b"])
def test_keeping_differs_from_redrawing(model: SpeechModel, waveforms: list[NDArray[np.float32]], name: str) -> None:
    made = {}
    for redraw in (True, False):
        adapter = Adapter(model, name, steps=STEPS, candidates=CANDIDATES, learning_rate=RATE, redraw=redraw)
        made[redraw] = adapter.transcribe(waveforms, utterance_ids=IDS)
    for redrawn, kept in zip(made[True], made[False], strict=True):
        assert kept.trace[0] == redrawn.trace[0]
        assert len({record.candidate_tokens for record in kept.trace[:-1]}) == 1
    assert any(redrawn.trace[-1] != kept.trace[-1] for redrawn, kept in zip(made[True], made[False], strict=True))


def test_early_stop_keeps_others_candidates(model: SpeechModel, waveforms: list[NDArray[np.float32]]) -> None:
    options = {"steps": 12, "candidates": CANDIDATES, "learning_rate": 3e-3, "redraw": False, "early_stop": 0.0335}
    together = Adapter(model, "em-tok-b", batch_size=3, **options).transcribe(waveforms, utterance_ids=IDS)
    alone = Adapter(model, "em-tok-b", batch_size=1, **options).transcribe(waveforms, utterance_ids=IDS)
    assert len({result.updates for result in together}) > 1
    for one, other in zip(together, alone, strict=True):
        assert (one.updates, one.hypothesis) == (other.updates, other.hypothesis)
        assert [record.loss for record in one.trace[:-1]] == pytest.approx([record.loss for record in other.trace[:-1]])
