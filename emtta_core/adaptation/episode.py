"""The episodes of a batch: adapt to each utterance from the source model, side by side, and forget.

In every state of the parameters one encoder pass serves the greedy hypothesis, the candidates (without gradient) and
the loss (with gradient). The loss of a batch is the sum of its utterances' losses, each of which depends on its own row
of the parameters alone, and AdamW works element by element: so B episodes side by side are B separate episodes.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from emtta_core.adaptation.layernorm import source_parameters, split
from emtta_core.adaptation.methods import Method
from emtta_core.adaptation.objective import Loss, loss_of
from emtta_core.adaptation.statistics import token_statistics
from emtta_core.model import forward
from emtta_core.model.candidates import BeamSearch, Greedy, Hypotheses, Sampled, Strategy, generate
from emtta_core.model.speech_model import SpeechModel
from emtta_core.model.tree import grow


@dataclass(frozen=True, slots=True)
class Options:
    """How to adapt.

    Attributes:
        method: which method.
        steps: S, updates an utterance.
        candidates: G, for methods that sample or search.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        seed: what sampled candidates are drawn by, with the utterance's id, the method and the step.
        decode_each_step: whether to decode the greedy hypothesis in every state, or in the first and the last alone.
    """

    method: Method
    steps: int
    candidates: int
    learning_rate: float
    weight_decay: float
    seed: int
    decode_each_step: bool


@dataclass(frozen=True, slots=True)
class Update:
    """What the update from a state was made of, `(B,)` each.

    Attributes:
        loss: the loss and its parts.
        entropy: mean entropy over all tokens of all candidates, nats a token.
        gradient_norm: Euclidean norm of the gradient.
        tokens: mean length of the candidates.
    """

    loss: Loss
    entropy: Tensor
    gradient_norm: Tensor
    tokens: Tensor


@dataclass(frozen=True, slots=True)
class State:
    """A state of B episodes: the greedy hypotheses there, if decoded, and the update made from it, if one was."""

    greedy: Hypotheses | None
    update: Update | None


@dataclass(frozen=True, slots=True)
class Batch:
    """B utterances ready for their episodes.

    Attributes:
        ids: their ids, which their random numbers come from.
        stem: `(B, S, d)`, what enters the encoder's layers.
        prompt: `(B, P)`.
        limits: `(B,)`, the most tokens of a hypothesis.
    """

    ids: Sequence[str]
    stem: Tensor
    prompt: Tensor
    limits: Tensor


def prepare_batch(
    model: SpeechModel, waveforms: Sequence[np.ndarray], languages: Sequence[str], ids: Sequence[str]
) -> Batch:
    """Compute what stays the same throughout the episodes of B utterances."""
    with torch.no_grad():
        features = model.mel(waveforms, device=model.device, dtype=model.dtype)
        stem = forward.stem(model.weights, features)
    seconds = [len(waveform) / model.sample_rate for waveform in waveforms]
    limits = [model.policy.max_tokens(length, model.prompt.length) for length in seconds]
    prompt = model.prompt.rows(languages, model.device)
    return Batch(ids, stem, prompt, torch.tensor(limits, device=model.device))


def run(model: SpeechModel, options: Options, batch: Batch) -> tuple[list[State], Tensor]:
    """Run the episodes of a batch.

    Returns:
        The S + 1 states (one for a method without candidates), and the parameters after the last, `(B, P)`.
    """
    steps = 0 if options.method.candidates == "none" else options.steps
    parameters = source_parameters(model.weights, len(batch.ids)).requires_grad_()
    optimizer = torch.optim.AdamW([parameters], lr=options.learning_rate, weight_decay=options.weight_decay)
    states = []
    for step in range(steps):
        greedy, update = _step(model, options, batch, parameters, step)
        optimizer.step()
        states.append(State(greedy, update))
    with torch.no_grad():
        norms = split(model.weights, parameters)
        memory = forward.cross_memory(model.weights, forward.encode(model.weights, norms, batch.stem))
    strategy: list[Strategy] = [Greedy()]
    last = generate(model.weights, norms, memory, batch.prompt, model.policy, batch.limits, strategy)
    states.append(State(last[0], None))
    return states, parameters.detach()


def _step(
    model: SpeechModel, options: Options, batch: Batch, parameters: Tensor, step: int
) -> tuple[Hypotheses | None, Update]:
    """Make the candidates of a state and put the gradient of their loss into `parameters`."""
    weights = model.weights
    norms = split(weights, parameters)
    memory = forward.cross_memory(weights, forward.encode(weights, norms, batch.stem))
    strategies = _strategies(options, batch, step)
    made = generate(weights, norms, memory, batch.prompt, model.policy, batch.limits, strategies)
    greedy = made[-1] if isinstance(strategies[-1], Greedy) else None
    loss, entropy = candidate_loss(model, options.method, norms, memory, batch.prompt, made[0])
    (gradient,) = torch.autograd.grad(loss.total.sum(), parameters)
    parameters.grad = gradient
    lengths = made[0].mask.sum(-1).to(gradient.dtype).mean(-1)
    detached = Loss(loss.total.detach(), loss.policy.detach(), loss.entropy.detach(), loss.advantage)
    return greedy, Update(detached, entropy, gradient.norm(dim=1), lengths)


def candidate_loss(
    model: SpeechModel,
    method: Method,
    norms: forward.Norms,
    memory: forward.Memory,
    prompt: Tensor,
    candidates: Hypotheses,
) -> tuple[Loss, Tensor]:
    """Return the loss of candidates, and their mean entropy in nats a token, `(B,)`.

    Every distinct beginning is decoded once (`emtta_core.model.tree`); the candidates' tokens then look up theirs.
    """
    weights = model.weights
    mask = candidates.mask
    tree = grow(prompt, candidates.tokens, mask, dtype=weights.head.dtype)
    hidden = forward.decode(weights, norms, memory, tree.nodes, tree.visible)
    raw = forward.logits(weights, hidden.index_select(0, tree.contexts))
    owner = tree.owner[mask]
    statistics = token_statistics(model.policy.mask_nodes(raw, tree.first), candidates.tokens[mask], owner)
    empty = statistics.entropy.new_zeros(mask.shape)
    entropies = empty.masked_scatter(mask, statistics.entropy.index_select(0, owner))
    log_probs = empty.masked_scatter(mask, statistics.log_prob)
    loss = loss_of(entropies, log_probs, mask, estimator=method.estimator, policy=method.policy, entropy=method.entropy)
    return loss, entropies.detach().sum((1, 2)) / mask.sum((1, 2))


def _strategies(options: Options, batch: Batch, step: int) -> list[Strategy]:
    """Return what makes the candidates of a step, and after it what makes the greedy hypothesis, if wanted."""
    kind = options.method.candidates
    if kind == "greedy":
        return [Greedy()]
    made: Strategy
    if kind == "beam":
        made = BeamSearch(options.candidates)
    else:
        longest = int(batch.limits.max())
        rows = [uniforms(options, name, step, int(limit)) for name, limit in zip(batch.ids, batch.limits, strict=True)]
        padded = [np.pad(row, ((0, 0), (0, longest - row.shape[1]))) for row in rows]
        made = Sampled(torch.from_numpy(np.stack(padded)).to(batch.stem.device))
    return [made, Greedy()] if step == 0 or options.decode_each_step else [made]


def uniforms(
    options: Options, utterance_id: str, step: int, length: int
) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    """Return the numbers `(G, length)` that a step's candidates of an utterance are drawn by.

    They come from the seed, the utterance's id, the method and the step, never from a position in a batch.
    """
    key = f"{options.seed}\0{utterance_id}\0{options.method.name}\0{step}"
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "big")
    return np.random.default_rng(seed).random((options.candidates, length))
