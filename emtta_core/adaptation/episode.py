"""Episodes: a batch of B utterances, each adapted with parameters of its own, starting from the source model.

In a stream, an utterance begins where the previous one left the model, and "source" means that state.

The parameters are the weights and biases of LayerNorms. They are one tensor `(B, P)`, so that an elementwise optimizer
such as AdamW runs B separate episodes in one call.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from emtta_core.adaptation.methods import Method
from emtta_core.adaptation.objective import Loss, token_statistics
from emtta_core.adaptation.optimizer import Carried, Episodes
from emtta_core.adaptation.options import Options, Trace
from emtta_core.adaptation.parameters import source_parameters, split
from emtta_core.adaptation.parts import CandidateRequest, calling, load, refuse_result
from emtta_core.adaptation.scored import ScoredCandidates, objective_loss, sharpness_of
from emtta_core.model import forward
from emtta_core.model.beam_search import BeamSearch
from emtta_core.model.candidates import Greedy, Hypotheses, Sampled, Strategy, generate
from emtta_core.model.forward import Norms, grow
from emtta_core.model.speech_model import SpeechModel
from emtta_core.plugins import is_plugin

LAST = -1
"""The step number that stands for the last state, whichever it is, in the seeds of its samples."""

TINY = 1e-12
"""Added to a gradient's norm before dividing by it, as it may be zero."""


@dataclass(frozen=True, slots=True)
class Batch:
    """B utterances ready for their episodes."""

    ids: Sequence[str]  # seed their random numbers
    stem: Tensor  # `(B, S, d)`, input of the encoder's layers
    prompt: Tensor  # `(B, P)`
    limits: Tensor  # `(B,)`, the maximum number of tokens of a hypothesis
    audible: Tensor | None = None  # `(B, 1, 1, S)`, where there is sound, as in `forward.Memory`; None: everywhere
    memory: forward.Memory | None = None  # their cross-attention keys and values, if the encoder is not adapted

    def keep(self, rows: Tensor) -> "Batch":
        """The batch of only these utterances."""
        stem, prompt, limits = (part.index_select(0, rows) for part in (self.stem, self.prompt, self.limits))
        audible = None if self.audible is None else self.audible.index_select(0, rows)
        memory = None if self.memory is None else self.memory.keep(rows)
        return Batch([self.ids[row] for row in rows.tolist()], stem, prompt, limits, audible, memory)


class Update(NamedTuple):
    """The numbers of an update, `(b,)` each: the fields of `StepRecord` from `loss` on; None if it has none."""

    loss: Tensor
    policy_loss: Tensor | None
    entropy_loss: Tensor | None
    candidate_entropy: Tensor
    advantage_std: Tensor | None
    gradient_norm: Tensor
    candidate_tokens: Tensor


@dataclass(frozen=True, slots=True)
class State:
    """A state of b episodes of a batch."""

    rows: Tensor  # `(b,)`, which utterances of the batch, in order
    greedy: Hypotheses | None  # the greedy hypotheses there, if decoded
    update: Update | None  # the update made from it; None in an episode's last state
    # In the last state, what the hypothesis is chosen from if not the greedy one: beams, best first, or samples.
    choices: Hypotheses | None = None


def prepare_batch(
    model: SpeechModel, waveforms: Sequence[np.ndarray], languages: Sequence[str], ids: Sequence[str]
) -> Batch:
    """Compute what stays the same throughout the episodes of B utterances."""
    with torch.no_grad():
        encoded = model.front_end(waveforms, device=model.device, dtype=model.dtype)
    limits = [
        model.max_tokens(len(waveform), language) for waveform, language in zip(waveforms, languages, strict=True)
    ]
    prompt = model.prompt.rows(languages, model.device)
    return Batch(ids, encoded.rows, prompt, torch.tensor(limits, device=model.device), encoded.audible)


def run(
    model: SpeechModel,
    method: Method,
    options: Options,
    batch: Batch,
    trace: Trace = "hypotheses",
    step_done: Callable[[int], None] = lambda _: None,
    carried: Carried | None = None,
) -> tuple[list[State], Tensor]:
    """Run the episodes of a batch.

    Args:
        model: the model to adapt.
        method: the adaptation method.
        options: the method's options.
        batch: B utterances.
        trace: "hypotheses" to decode the greedy hypothesis in every state; otherwise only in the first and the last.
        step_done: called after each update with the number of episodes that made it.
        carried: in a stream, the state each utterance starts from, which then counts as its source; updated in place
            to where it ends. None: all begin at the source model.

    Returns:
        The states, each utterance's in order; and the parameters in the last of each, `(B, P)`. The last state is that
        of all utterances, except those that the gate kept from adapting if the method decides greedily: they have a
        state of their own before it.
    """
    if carried is None:
        source = source_parameters(model.weights, len(batch.ids), method.parameters)
    else:
        source = carried.parameters.clone()
    if method.parameters == "decoder-layernorm":
        with torch.no_grad():
            memory = _cross_memory(model, split(model.weights, source, method.parameters), batch)
        batch = replace(batch, memory=memory)
    last = source.clone()
    undecided = torch.arange(len(batch.ids), device=source.device)
    active, source_greedy = _gate(model, method, options, batch, source)
    episodes = Episodes(batch, source, options, carried)
    if source_greedy is not None and len(active) < len(undecided):
        episodes.keep(active)
    episodes.source = None if source_greedy is None else source_greedy.keep(active)
    states: list[State] = []
    for step in range(options.steps if len(active) else 0):
        greedy, update, gradient = _step(model, method, options, episodes, step, trace)
        episodes.update(gradient)
        states.append(State(episodes.rows, greedy, update))
        last[episodes.rows] = episodes.parameters.detach()
        if carried is not None:
            episodes.save_to(carried)
        step_done(len(episodes.rows))
        if options.early_stop is not None and step > 0:
            changing = _changing(states, options.early_stop)
            if not len(changing):
                break
            if len(changing) < len(episodes.rows):
                episodes.keep(changing)
    if source_greedy is not None and method.decision == "greedy":  # gated utterances have their hypotheses already
        gated = torch.ones_like(undecided, dtype=torch.bool).index_fill(0, active, False).nonzero().squeeze(1)
        if len(gated):
            states.append(State(gated, source_greedy.keep(gated), None))
        undecided = active
    if len(undecided):
        states.append(decide(model, method, options, batch, last, undecided))
    return states, last


def decide(
    model: SpeechModel, method: Method, options: Options, batch: Batch, parameters: Tensor, rows: Tensor
) -> State:
    """Decode what the hypotheses of `rows` `(b,)` of a batch are chosen from, using `parameters` `(B, P)`."""
    if len(rows) < len(batch.ids):
        batch, parameters = batch.keep(rows), parameters.index_select(0, rows)
    strategies: list[Strategy] = [Greedy()]
    source = choices_of(method)
    if source != "greedy":
        strategies.append(_strategy(model, method, options, batch, source, LAST, options.beams))
    with torch.no_grad(), calling("candidates", source):
        norms = split(model.weights, parameters, method.parameters)
        greedy, *choices = _generate(model, norms, _cross_memory(model, norms, batch), batch, strategies)
    for hypotheses in choices:
        _check_hypotheses(hypotheses, source, batch)
    return State(rows, greedy, None, *choices)


def choices_of(method: Method) -> str:
    """The source of the sequences among which a method chooses its hypothesis; "greedy" has only one."""
    named = {"greedy": "greedy", "beam": "beam", "mbr": "sample"}
    return named.get(method.decision) or str(load("decision", method.decision).candidates)


def _gate(
    model: SpeechModel, method: Method, options: Options, batch: Batch, source: Tensor
) -> tuple[Tensor, Hypotheses | None]:
    # Which utterances are adapted to; and the source's greedy hypotheses of all, if these decide it.
    rows = torch.arange(len(batch.ids), device=source.device)
    if method.candidates == "none":
        return rows[:0], None
    if options.adapt_above is None:
        return rows, None
    with torch.no_grad():
        norms = split(model.weights, source, method.parameters)
        (greedy,) = _generate(model, norms, _cross_memory(model, norms, batch), batch, [Greedy()])
    assert greedy.entropy is not None
    return (greedy.entropy[:, 0] > options.adapt_above).nonzero().squeeze(1), greedy


def _step(
    model: SpeechModel, method: Method, options: Options, episodes: Episodes, step: int, trace: Trace
) -> tuple[Hypotheses | None, Update, Tensor]:
    # The greedy hypotheses of a state, if wanted; the numbers of the update from it; and the update's gradient.
    # 1) One pass of the encoder serves both the candidates, which need no gradient, and their loss.
    batch, parameters = episodes.batch, episodes.parameters
    norms = split(model.weights, parameters, method.parameters)
    memory = _cross_memory(model, norms, batch)
    # 2) Candidates and, in the same token loop, the greedy hypothesis if it is wanted and not yet known.
    greedy = episodes.source if step == 0 else None
    decode_greedy = greedy is None and (step == 0 or trace == "hypotheses")
    with calling("candidates", method.candidates):
        strategies = _strategies(model, method, options, batch, step, greedy=decode_greedy)
        generated = _generate(model, norms, memory, batch, strategies) if strategies else []
    if strategies and isinstance(strategies[-1], Greedy):
        greedy = generated[-1]
    if episodes.candidates is None or options.redraw:
        episodes.candidates = generated[0] if generated else greedy
        _check_hypotheses(episodes.candidates, method.candidates, batch)
    candidates = episodes.candidates
    assert candidates is not None
    # 3) Their loss, and the gradient of its sum: each utterance's parameters receive only their own part.
    loss, entropy = candidate_loss(model, method, norms, memory, batch.prompt, candidates, batch.ids, step)
    (gradient,) = torch.autograd.grad(loss.total.sum(), parameters)
    policy, entropic, advantage = loss.policy, loss.entropy, loss.advantage
    update = Update(
        loss=loss.total.detach(),
        policy_loss=None if policy is None else policy.detach(),
        entropy_loss=None if entropic is None else entropic.detach(),
        candidate_entropy=entropy,
        advantage_std=None if advantage is None else advantage[..., 0].std(-1, correction=0),
        gradient_norm=gradient.norm(dim=1),
        candidate_tokens=candidates.mask.sum(-1).to(gradient.dtype).mean(-1),
    )
    # 4) A sharpness-aware update follows the gradient at the worst point nearby, for the same candidates.
    radius = sharpness_of(method.objective)
    if radius:
        del loss, norms, memory
        ascent = radius * gradient / (update.gradient_norm.unsqueeze(1) + TINY)
        nearby = (parameters.detach() + ascent).requires_grad_()
        norms = split(model.weights, nearby, method.parameters)
        memory = _cross_memory(model, norms, batch)
        loss, _ = candidate_loss(model, method, norms, memory, batch.prompt, candidates, batch.ids, step)
        (gradient,) = torch.autograd.grad(loss.total.sum(), nearby)
    return greedy, update, gradient


def candidate_loss(
    model: SpeechModel,
    method: Method,
    norms: forward.Norms,
    memory: forward.Memory,
    prompt: Tensor,
    candidates: Hypotheses,
    ids: Sequence[str] | None = None,
    step: int = 0,
) -> tuple[Loss, Tensor]:
    """Compute the loss of candidates, and their mean entropy in nats per token, `(B,)`.

    Every distinct prefix is decoded once (`emtta_core.model.forward`), and the candidates' tokens look theirs up.

    Args:
        model: the model to adapt.
        method: provides the objective.
        norms: the LayerNorms of the B utterances.
        memory: their cross-attention keys and values.
        prompt: `(B, P)`.
        candidates: G for each utterance.
        ids: the utterances' ids, for objectives that use them; None: their indices.
        step: the number of updates made, likewise.
    """
    weights = model.weights
    mask = candidates.mask
    tree = grow(prompt, candidates.tokens, mask, dtype=weights.head.dtype)
    hidden = forward.decode(weights, norms.decoder, memory, tree.nodes, tree.visible)
    owner = tree.owner[mask]
    # The logits are the largest tensor: no variable references them once the policy has masked them.
    masked = model.policy.mask_nodes(forward.logits(weights, hidden.index_select(0, tree.contexts)), tree.first)
    statistics = token_statistics(masked, candidates.tokens[mask], owner)
    empty = statistics.entropy.new_zeros(mask.shape)
    entropies = empty.masked_scatter(mask, statistics.entropy.index_select(0, owner))
    log_probs = empty.masked_scatter(mask, statistics.log_prob)
    names = [str(row) for row in range(len(mask))] if ids is None else ids
    scored = ScoredCandidates(
        *(candidates.tokens, mask, candidates.ended, log_probs, entropies, names, step, masked, tree.owner, model.texts)
    )
    return objective_loss(method.objective, scored), entropies.detach().sum((1, 2)) / mask.sum((1, 2))


def _changing(states: Sequence[State], tolerance: float) -> Tensor:
    # Which of the last state's episodes have an entropy that still changes.
    previous, current = states[-2], states[-1]
    assert previous.update is not None
    assert current.update is not None
    index = torch.searchsorted(previous.rows, current.rows)  # rows only ever leave, so they stay in order
    change = current.update.candidate_entropy - previous.update.candidate_entropy.index_select(0, index)
    return (change.abs() > tolerance).nonzero().squeeze(1)


def _cross_memory(model: SpeechModel, norms: Norms, batch: Batch) -> forward.Memory:
    if batch.memory is not None:
        return batch.memory
    encoded = forward.encode(model.weights, norms.encoder, batch.stem, batch.audible)
    return forward.cross_memory(model.weights, encoded, batch.audible)


def _generate(
    model: SpeechModel, norms: Norms, memory: forward.Memory, batch: Batch, strategies: Sequence[Strategy]
) -> list[Hypotheses]:
    return generate(model.weights, norms.decoder, memory, batch.prompt, model.policy, batch.limits, strategies)


def _strategies(
    model: SpeechModel, method: Method, options: Options, batch: Batch, step: int, *, greedy: bool
) -> list[Strategy]:
    # First the strategy for a step's candidates, if they are redrawn; last that for its greedy hypothesis, if wanted.
    strategies: list[Strategy] = [Greedy()] if greedy else []
    if step and not options.redraw:
        return strategies
    if method.candidates == "greedy":
        return strategies if step == 0 else [Greedy()]
    return [_strategy(model, method, options, batch, method.candidates, step, options.candidates), *strategies]


def _strategy(
    model: SpeechModel, method: Method, options: Options, batch: Batch, source: str, step: int, beams: int
) -> Strategy:
    # The strategy for the sequences of a source, in a step or in the last state.
    if source == "beam":
        return BeamSearch(beams)
    numbers = [noise_key(method, options, name, step) for name in batch.ids]
    keys = torch.tensor(numbers, device=batch.stem.device)
    if not is_plugin(source):
        return Sampled(keys, options.candidates)
    with calling("candidates", source):
        loaded = load("candidates", source)(CandidateRequest(batch.ids, step, keys, options, model))
    missing = [name for name in ("rows", "begin", "advance", "going", "keep", "result") if not hasattr(loaded, name)]
    if missing:
        expected = f"a strategy of the token loop; it lacks {', '.join(missing)}"
        raise refuse_result("candidates", source, f"an object of the class {type(loaded).__name__}", expected)
    strategy: Strategy = loaded
    return strategy


def _check_hypotheses(hypotheses: Hypotheses | None, source: str, batch: Batch) -> None:
    # Refuse the output of a plug-in's strategy if it is not sequences of tokens for each utterance.
    if not is_plugin(source):
        return
    expected = f"Hypotheses with tokens and a mask `({len(batch.ids)}, R, T)`, and a token in each sequence"
    if not isinstance(hypotheses, Hypotheses):
        raise refuse_result("candidates", source, f"an object of the class {type(hypotheses).__name__}", expected)
    shapes = [tuple(part.shape) for part in (hypotheses.tokens, hypotheses.mask, hypotheses.ended)]
    if shapes[0] != shapes[1] or shapes[0][:2] != shapes[2] or shapes[0][0] != len(batch.ids):
        raise refuse_result("candidates", source, f"tokens, mask and ended of shapes {shapes}", expected)
    if not hypotheses.mask.any(-1).all():
        raise refuse_result("candidates", source, "a sequence without a token", expected)


def noise_key(method: Method, options: Options, utterance_id: str, step: int) -> int:
    """The 64-bit seed of an utterance's candidates in a step.

    It depends on the seed, the utterance's id, the method and the step, never on the position in a batch.
    """
    key = f"{options.seed}\0{utterance_id}\0{method.name}\0{step}"
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big", signed=True)
