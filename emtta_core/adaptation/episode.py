"""The parameters that are adapted: LayerNorms' weights and biases, one copy an utterance.

They lie in one tensor `(B, P)`, so that an optimizer that works element by element (AdamW does) runs B separate
episodes in one call.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from emtta_core.adaptation.methods import Method, Parameters
from emtta_core.adaptation.objective import Loss, loss_of, token_statistics
from emtta_core.model import forward
from emtta_core.model.candidates import BeamSearch, Greedy, Hypotheses, Sampled, Strategy, generate
from emtta_core.model.forward import Norms, grow
from emtta_core.model.speech_model import SpeechModel
from emtta_core.model.weights import Weights


def source_parameters(weights: Weights, batch: int, which: Parameters = "layernorm") -> Tensor:
    """Return the adapted LayerNorm parameters as trained, `(B, P)`, one copy for each of `batch` utterances."""
    return weights.norms[_place(weights, which)].flatten().repeat(batch, 1)


def split(weights: Weights, parameters: Tensor, which: Parameters = "layernorm") -> Norms:
    """Return the LayerNorms, of which `parameters` `(B, P)` hold those adapted, without a copy."""
    count = weights.encoder_norms
    own = parameters.view(len(parameters), -1, *weights.norms.shape[1:])
    source = weights.norms.expand(len(parameters), -1, -1, -1)
    if which == "encoder-layernorm":
        return Norms(own, source[:, count:])
    if which == "decoder-layernorm":
        return Norms(source[:, :count], own)
    return Norms(own[:, :count], own[:, count:])


def _place(weights: Weights, which: Parameters) -> slice:
    count = weights.encoder_norms
    places = {"encoder-layernorm": slice(count), "decoder-layernorm": slice(count, None)}
    return places.get(which, slice(None))


Trace = Literal["none", "metrics", "hypotheses"]
"""What is noted of each state: nothing, the numbers of its update, or its greedy hypothesis too."""

LAST = -1
"""Stands for the number of the last state, whichever it is, where its samples are drawn."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to adapt."""

    method: Method  # which method
    steps: int = 10  # S, updates an utterance, at most
    candidates: int = 8  # G, for methods that sample or search
    learning_rate: float = 1e-3  # of AdamW
    weight_decay: float = 0.01  # of AdamW
    # Of AdamW, by which its means of the gradient and of its square decay each step.
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8  # of AdamW, added to the root of the mean square
    # Whether candidates are made anew in each step; else those of the first are kept. From the second step on they
    # are then not those of the model that is updated, and the policy gradient is no longer on-policy.
    redraw: bool = True
    seed: int = 0  # what sampled candidates are drawn by, with the utterance's id, the method and the step
    # Nats per token; an episode ends with the update before which its candidates' mean entropy moved by at most this
    # since the state before. None: every episode has S updates.
    early_stop: float | None = None
    # Whether to decode the greedy hypothesis in every state, or in the first and the last alone.
    trace: Trace = "hypotheses"


@dataclass(frozen=True, slots=True)
class Update:
    """What the update from a state was made of, `(b,)` each."""

    loss: Loss  # the loss and its parts
    entropy: Tensor  # mean entropy over all tokens of all candidates, nats per token
    gradient_norm: Tensor  # Euclidean norm of the gradient
    tokens: Tensor  # mean length of the candidates


@dataclass(frozen=True, slots=True)
class State:
    """A state of the b episodes that had come so far, or the last state of all B."""

    rows: Tensor  # `(b,)`, which utterances of the batch
    greedy: Hypotheses | None  # the greedy hypotheses there, if decoded
    update: Update | None  # the update made from it, if one was
    samples: Hypotheses | None = None  # of the last state, what the hypothesis is chosen from, if the method does so


@dataclass(frozen=True, slots=True)
class Batch:
    """B utterances ready for their episodes."""

    ids: Sequence[str]  # their ids, which their random numbers come from
    stem: Tensor  # `(B, S, d)`, what enters the encoder's layers
    prompt: Tensor  # `(B, P)`
    limits: Tensor  # `(B,)`, the most tokens of a hypothesis
    audible: Tensor | None = None  # `(B, 1, 1, S)`, where there is sound, as in `forward.Memory`; None: everywhere
    memory: forward.Memory | None = None  # their cross-attention keys and values, where the encoder is not adapted

    def keep(self, rows: Tensor) -> "Batch":
        """Return the batch of these utterances alone."""
        stem, prompt, limits = (part.index_select(0, rows) for part in (self.stem, self.prompt, self.limits))
        audible = None if self.audible is None else self.audible.index_select(0, rows)
        memory = None if self.memory is None else self.memory.keep(rows)
        return Batch([self.ids[row] for row in rows.tolist()], stem, prompt, limits, audible, memory)


def prepare_batch(
    model: SpeechModel, waveforms: Sequence[np.ndarray], languages: Sequence[str], ids: Sequence[str]
) -> Batch:
    """Compute what stays the same throughout the episodes of B utterances."""
    with torch.no_grad():
        heard = model.hearing(waveforms, device=model.device, dtype=model.dtype)
    limits = [
        model.max_tokens(len(waveform), language) for waveform, language in zip(waveforms, languages, strict=True)
    ]
    prompt = model.prompt.rows(languages, model.device)
    return Batch(ids, heard.rows, prompt, torch.tensor(limits, device=model.device), heard.audible)


class Episodes:
    """The episodes that still go on: their parameters, and one optimizer for all of them.

    Attributes:
        rows: `(b,)`, which utterances of the batch they are of.
        batch: these utterances.
        parameters: `(b, P)`.
        candidates: those of the last step; None before the first.
    """

    def __init__(self, batch: Batch, parameters: Tensor, options: Options):
        """Begin at `parameters`."""
        self.rows = torch.arange(len(batch.ids), device=parameters.device)
        self.batch = batch
        self.candidates: Hypotheses | None = None
        self._options = options
        self._take(parameters)

    def update(self, gradient: Tensor) -> None:
        """Make AdamW's update."""
        self.parameters.grad = gradient
        self._optimizer.step()

    def keep(self, going: Tensor) -> None:
        """Go on with these of the episodes alone, `(k,)`."""
        moments = self._optimizer.state[self.parameters]
        self.rows, self.batch = self.rows.index_select(0, going), self.batch.keep(going)
        self.candidates = None if self.candidates is None else self.candidates.keep(going)
        self._take(self.parameters.detach().index_select(0, going))
        self._optimizer.state[self.parameters] = {
            name: value.index_select(0, going) if value.dim() else value for name, value in moments.items()
        }

    def _take(self, parameters: Tensor) -> None:
        options = self._options
        self.parameters = parameters.requires_grad_()
        self._optimizer = torch.optim.AdamW(
            [self.parameters],
            lr=options.learning_rate,
            betas=options.betas,
            eps=options.epsilon,
            weight_decay=options.weight_decay,
            fused=True,
        )


def run(
    model: SpeechModel, options: Options, batch: Batch, step_done: Callable[[int], None] = lambda _: None
) -> tuple[list[State], Tensor]:
    """Run the episodes of a batch; `step_done` is called after each update with the number of episodes that made it.

    Returns:
        The states, at most S + 1 (one for a method without candidates), of which the last has every utterance's own
        last state; and the parameters there, `(B, P)`.
    """
    method, weights = options.method, model.weights
    source = source_parameters(weights, len(batch.ids), method.parameters)
    if method.parameters == "decoder-layernorm":
        with torch.no_grad():
            batch = replace(batch, memory=_hear(model, split(weights, source, method.parameters), batch))
    last = source.clone()
    episodes = Episodes(batch, source, options)
    states: list[State] = []
    for step in range(0 if method.candidates == "none" else options.steps):
        greedy, update, gradient = _step(model, options, episodes, step)
        episodes.update(gradient)
        states.append(State(episodes.rows, greedy, update))
        last[episodes.rows] = episodes.parameters.detach()
        step_done(len(episodes.rows))
        if options.early_stop is not None and step > 0:
            going = _unsettled(states, options.early_stop)
            if not len(going):
                break
            if len(going) < len(episodes.rows):
                episodes.keep(going)
    with torch.no_grad():
        norms = split(weights, last, method.parameters)
        strategies: list[Strategy] = [Greedy()]
        if method.decision == "mbr":
            strategies.append(_sampled(options, batch, LAST))
        made = _generate(model, norms, _hear(model, norms, batch), batch, strategies)
    states.append(State(torch.arange(len(batch.ids)), made[0], None, made[1] if len(made) > 1 else None))
    return states, last


def _unsettled(states: Sequence[State], tolerance: float) -> Tensor:
    # Which of the last state's episodes have an entropy that still moves.
    before, now = states[-2], states[-1]
    assert before.update is not None
    assert now.update is not None
    place = torch.searchsorted(before.rows, now.rows)  # rows only ever leave, so they stay in order
    moved = now.update.entropy - before.update.entropy.index_select(0, place)
    return (moved.abs() > tolerance).nonzero().squeeze(1)


def _hear(model: SpeechModel, norms: forward.Norms, batch: Batch) -> forward.Memory:
    if batch.memory is not None:
        return batch.memory
    encoded = forward.encode(model.weights, norms.encoder, batch.stem, batch.audible)
    return forward.cross_memory(model.weights, encoded, batch.audible)


def _generate(
    model: SpeechModel, norms: forward.Norms, memory: forward.Memory, batch: Batch, strategies: Sequence[Strategy]
) -> list[Hypotheses]:
    return generate(model.weights, norms.decoder, memory, batch.prompt, model.policy, batch.limits, strategies)


def _step(
    model: SpeechModel, options: Options, episodes: Episodes, step: int
) -> tuple[Hypotheses | None, Update, Tensor]:
    # Make the candidates of a state, and return its greedy hypotheses with the gradient of the candidates' loss.
    batch, parameters = episodes.batch, episodes.parameters
    norms = split(model.weights, parameters, options.method.parameters)
    memory = _hear(model, norms, batch)
    strategies = _strategies(options, batch, step)
    made = _generate(model, norms, memory, batch, strategies) if strategies else []
    greedy = made[-1] if strategies and isinstance(strategies[-1], Greedy) else None
    if episodes.candidates is None or options.redraw:
        episodes.candidates = made[0]
    candidates = episodes.candidates
    loss, entropy = candidate_loss(model, options.method, norms, memory, batch.prompt, candidates)
    (gradient,) = torch.autograd.grad(loss.total.sum(), parameters)
    lengths = candidates.mask.sum(-1).to(gradient.dtype).mean(-1)
    detached = Loss(loss.total.detach(), loss.policy.detach(), loss.entropy.detach(), loss.advantage)
    return greedy, Update(detached, entropy, gradient.norm(dim=1), lengths), gradient


def candidate_loss(
    model: SpeechModel,
    method: Method,
    norms: forward.Norms,
    memory: forward.Memory,
    prompt: Tensor,
    candidates: Hypotheses,
) -> tuple[Loss, Tensor]:
    """Return the loss of candidates, and their mean entropy in nats per token, `(B,)`.

    Every distinct beginning is decoded once (`emtta_core.model.forward`); the candidates' tokens then look up theirs.
    """
    weights = model.weights
    mask = candidates.mask
    tree = grow(prompt, candidates.tokens, mask, dtype=weights.head.dtype)
    hidden = forward.decode(weights, norms.decoder, memory, tree.nodes, tree.visible)
    owner = tree.owner[mask]
    # Of all that is held, the logits are the most: no name keeps them once the policy has masked them.
    masked = model.policy.mask_nodes(forward.logits(weights, hidden.index_select(0, tree.contexts)), tree.first)
    statistics = token_statistics(masked, candidates.tokens[mask], owner)
    empty = statistics.entropy.new_zeros(mask.shape)
    entropies = empty.masked_scatter(mask, statistics.entropy.index_select(0, owner))
    log_probs = empty.masked_scatter(mask, statistics.log_prob)
    loss = loss_of(entropies, log_probs, mask, method.objective)
    return loss, entropies.detach().sum((1, 2)) / mask.sum((1, 2))


def _strategies(options: Options, batch: Batch, step: int) -> list[Strategy]:
    # Makes the candidates of a step, if it makes any, and after it what makes the greedy hypothesis.
    kind = options.method.candidates
    if step and not options.redraw:
        return [Greedy()] if options.trace == "hypotheses" else []
    if kind == "greedy":
        return [Greedy()]
    made: Strategy = BeamSearch(options.candidates) if kind == "beam" else _sampled(options, batch, step)
    return [made, Greedy()] if step == 0 or options.trace == "hypotheses" else [made]


def _sampled(options: Options, batch: Batch, step: int) -> Sampled:
    limits = batch.limits.tolist()  # at once: the host waits for the device once, not once an utterance
    longest = max(limits)
    rows = [uniforms(options, name, step, limit) for name, limit in zip(batch.ids, limits, strict=True)]
    padded = [np.pad(row, ((0, 0), (0, longest - row.shape[1]))) for row in rows]
    return Sampled(torch.from_numpy(np.stack(padded)).to(batch.stem.device))


def uniforms(
    options: Options, utterance_id: str, step: int, length: int
) -> "np.ndarray[tuple[int, int], np.dtype[np.float64]]":
    """Return the numbers `(G, length)` that a step's candidates of an utterance are drawn by.

    They come from the seed, the utterance's id, the method and the step, never from a position in a batch.
    """
    key = f"{options.seed}\0{utterance_id}\0{options.method.name}\0{step}"
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:16], "big")
    return np.random.default_rng(seed).random((options.candidates, length))
