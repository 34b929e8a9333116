"""The two paths of an episode: the fast one of the families, and the generic one through transformers' own code.

Both give the same states for the same model (`tests/adaptation/test_generic_path.py`), so callers need not distinguish
them.
"""

from collections.abc import Callable, Sequence

import torch

from emtta_core.adaptation.episode import Batch, State, decide, prepare_batch, run
from emtta_core.adaptation.methods import Method
from emtta_core.adaptation.optimizer import Carried
from emtta_core.adaptation.options import Options, Trace
from emtta_core.adaptation.parameters import source_parameters
from emtta_core.adaptation.parts import Utterances
from emtta_core.errors import UsageError
from emtta_core.model.model_files import NO_STREAM
from emtta_core.model.speech_model import Model, SpeechModel
from emtta_core.model.transformers_model import TransformersModel

Source = Callable[[Sequence[int]], State]
"""Returns what the hypotheses of some rows of a batch are chosen from in the source model."""


def check_path(model: Model, method: Method) -> None:
    """Refuse a method that cannot adapt a model.

    Raises:
        UsageError: says what is possible.
    """
    if isinstance(model, TransformersModel):
        from emtta_core.adaptation import generic  # imports transformers, which the fast path does not need here

        generic.check(model, method)


def check_stream(model: Model) -> None:
    """Refuse a stream for a model on the generic path, which carries no state between utterances."""
    if isinstance(model, TransformersModel):
        raise UsageError(NO_STREAM)


def states_of(
    model: Model,
    method: Method,
    options: Options,
    batch: Utterances,
    trace: Trace,
    step_done: Callable[[int], None],
    stream_states: Sequence[Carried | None] | None = None,
) -> tuple[list[State], Source, Carried | None]:
    """Run the episodes of a batch, which on the generic path has one utterance.

    Args:
        model: the model to adapt.
        method: the adaptation method.
        options: the method's options.
        batch: the utterances.
        trace: as for `emtta_core.adaptation.episode.run`.
        step_done: called after each update with the number of episodes that made it.
        stream_states: in streams, which need the fast path, the state each utterance starts from; None: the source
            model.

    Returns:
        The states, each utterance's in order; a function that decodes with the model they started from, for utterances
        that revert to it; and the state in which streams end, or None.
    """
    if isinstance(model, TransformersModel):
        from emtta_core.adaptation import generic

        (name,), (waveform,), (language,) = batch.ids, batch.waveforms, batch.languages
        episode = generic.Episode(model, method, options, waveform, language, name)
        return episode.run(trace, step_done), lambda _: episode.source(), None
    assert isinstance(model, SpeechModel)
    prepared = prepare_batch(model, batch.waveforms, batch.languages, batch.ids)
    carried = None if stream_states is None else _stacked(model, method, stream_states)
    states, _ = run(model, method, options, prepared, trace, step_done, carried)
    return states, lambda rows: _source(model, method, options, prepared, stream_states, states[0], rows), carried


def _stacked(model: SpeechModel, method: Method, stream_states: Sequence[Carried | None]) -> Carried:
    source = Carried.begin(source_parameters(model.weights, 1, method.parameters))
    return Carried.stack([state or source for state in stream_states])


def _source(
    model: SpeechModel,
    method: Method,
    options: Options,
    batch: Batch,
    stream_states: Sequence[Carried | None] | None,
    first: State,
    rows: Sequence[int],
) -> State:
    indices = torch.tensor(rows, device=model.device)
    if method.decision == "greedy":
        assert first.greedy is not None
        return State(indices, first.greedy.keep(torch.searchsorted(first.rows, indices)), None)
    parameters = _stacked(model, method, stream_states or [None] * len(batch.ids)).parameters
    return decide(model, method, options, batch, parameters, indices)
