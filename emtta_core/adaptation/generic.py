"""The episode on the generic path: one utterance, adapted to with transformers' own implementation of the network.

It is the reference for the fast path (`emtta_core.adaptation.episode`) and gives the same states: the same candidates,
losses, updates and rules for one utterance, written without batches.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from emtta_core.adaptation import ctc
from emtta_core.adaptation.episode import LAST, TINY, State, Update, choices_of, noise_key
from emtta_core.adaptation.methods import Method
from emtta_core.adaptation.objective import Loss, token_statistics
from emtta_core.adaptation.options import Options, Trace
from emtta_core.adaptation.parts import CandidateRequest, calling, load, refuse_result
from emtta_core.adaptation.scored import ScoredCandidates, objective_loss, sharpness_of
from emtta_core.errors import UsageError
from emtta_core.model.candidates import Hypotheses, Sampled, Strategy
from emtta_core.model.own_generation import Frames, Sequences, Utterance, encode
from emtta_core.model.transformers_model import TransformersModel
from emtta_core.plugins import is_plugin


class Episode:
    """The adaptation of a model to one utterance by a method; `run` gives its states."""

    def __init__(
        self,
        model: TransformersModel,
        method: Method,
        options: Options,
        waveform: NDArray[np.float32],
        language: str,
        name: str,
    ):
        """Prepare for an utterance, whose name seeds its random numbers."""
        self._model, self._method, self._options, self._name = model, method, options, name
        self._utterance: Utterance = encode(model, waveform, language)
        self._rows = torch.zeros(1, dtype=torch.long, device=model.device)

    def run(self, trace: Trace = "hypotheses", step_done: Callable[[int], None] = lambda _: None) -> list[State]:
        """Adapt, and return the episode's states in order; the hypothesis is chosen from the last.

        Args:
            trace: "hypotheses" to decode the greedy hypothesis in every state; otherwise only in the first and last.
            step_done: called after each update with 1.
        """
        method, options = self._method, self._options
        states: list[State] = []
        with self._model.adapting(parameter_names(self._model, method)) as parameters:
            if not method.adapts:
                return [self._decide()]
            source = None
            if options.adapt_above is not None:
                source = self._state().greedy()
                assert source.entropy is not None
                if float(source.entropy) <= options.adapt_above:
                    gated = method.decision == "greedy"
                    return [State(self._rows, source, None) if gated else self._decide()]
            optimizer = torch.optim.AdamW(
                parameters,
                lr=options.learning_rate,
                betas=options.betas,
                eps=options.epsilon,
                weight_decay=options.weight_decay,
            )
            candidates: Hypotheses | None = None
            for step in range(options.steps):
                # 1) Candidates, and the greedy hypothesis if it is wanted or is itself the candidate.
                state, greedy = self._state(), source if step == 0 else None
                redrawn = method.candidates == "greedy" and options.redraw
                if greedy is None and (step == 0 or trace == "hypotheses" or redrawn):
                    greedy = state.greedy()
                if candidates is None or options.redraw:
                    candidates = self._hypotheses(state, method.candidates, step, options.candidates, greedy)
                # 2) Their loss, its gradient, and AdamW's update.
                loss, entropy = self._loss(state, candidates, step)
                gradients = _gradients(loss, parameters)
                update = _update(loss, entropy, gradients, candidates)
                radius = sharpness_of(method.objective)
                if radius:
                    gradients = self._worst_gradients(parameters, gradients, radius, candidates, step)
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.grad = gradient
                del state, loss
                optimizer.step()
                states.append(State(self._rows, greedy, update))
                step_done(1)
                # 3) An episode ends once its candidates' entropy no longer changes.
                if options.early_stop is not None and step > 0:
                    previous = states[-2].update
                    assert previous is not None
                    if float((update.candidate_entropy - previous.candidate_entropy).abs()) <= options.early_stop:
                        break
            states.append(self._decide())
        return states

    def source(self) -> State:
        """What the hypothesis is chosen from in the source model."""
        with self._model.adapting([]):
            return self._decide()

    def _state(self) -> Sequences | Frames:
        kind = Frames if self._model.layout == "ctc" else Sequences
        return kind(self._model, self._utterance)

    def _decide(self) -> State:
        with torch.no_grad():
            state = self._state()
            greedy, source = state.greedy(), choices_of(self._method)
            if source == "greedy":
                return State(self._rows, greedy, None)
            return State(self._rows, greedy, None, self._hypotheses(state, source, LAST, self._options.beams, None))

    def _hypotheses(
        self, state: Sequences | Frames, source: str, step: int, beams: int, greedy: Hypotheses | None
    ) -> Hypotheses:
        if source == "greedy":
            return greedy or state.greedy()
        assert isinstance(state, Sequences)
        if source == "beam":
            return state.beams(beams)
        with calling("candidates", source):
            return state.generate_with(self._strategy(source, step))

    def _strategy(self, source: str, step: int) -> Strategy:
        key = noise_key(self._method, self._options, self._name, step)
        keys = torch.tensor([key], device=self._model.device)
        if not is_plugin(source):
            return Sampled(keys, self._options.candidates)
        request = CandidateRequest([self._name], step, keys, self._options, self._model)
        loaded: Strategy = load("candidates", source)(request)
        return loaded

    def _loss(self, state: Sequences | Frames, candidates: Hypotheses, step: int) -> tuple[Loss, Tensor]:
        # The loss of candidates, `(1,)`, and their mean entropy in nats per token, `(1,)`.
        mask = candidates.mask
        contexts = state.logits(candidates).to(self._model.dtype)[mask[0]]
        statistics = token_statistics(contexts, candidates.tokens[mask])
        empty = statistics.entropy.new_zeros(mask.shape)
        entropies = empty.masked_scatter(mask, statistics.entropy)
        log_probs = empty.masked_scatter(mask, statistics.log_prob)
        owner = torch.zeros_like(candidates.tokens).masked_scatter(
            mask, torch.arange(len(contexts), device=mask.device)
        )
        scored = ScoredCandidates(
            *(candidates.tokens, mask, candidates.ended, log_probs, entropies, [self._name], step, contexts, owner),
            self._model.texts,
        )
        objective = ctc.objective_of(self._method, self._model)
        return objective_loss(objective, scored), entropies.detach().sum((1, 2)) / mask.sum((1, 2))

    def _worst_gradients(
        self,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor | None],
        radius: float,
        candidates: Hypotheses,
        step: int,
    ) -> list[Tensor | None]:
        # The gradient at the worst point nearby, for the same candidates, for a sharpness-aware update.
        source = [parameter.detach().clone() for parameter in parameters]
        scale = radius / (_norm(gradients) + TINY)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    parameter.add_(scale * gradient)
        loss, _ = self._loss(self._state(), candidates, step)
        worst = _gradients(loss, parameters)
        with torch.no_grad():
            for parameter, value in zip(parameters, source, strict=True):
                parameter.copy_(value)
        return worst


def check(model: TransformersModel, method: Method) -> None:
    """Refuse a method that cannot adapt a model on this path.

    Raises:
        UsageError: says what is possible.
    """
    if model.layout == "ctc":
        ctc.check(model.name, method)
    parameter_names(model, method)


def parameter_names(model: TransformersModel, method: Method) -> list[str]:
    """The names of the parameters that a method adapts, as in the network.

    Raises:
        UsageError: the requested part of the model has none.
        PluginError: a plug-in selected something else.
    """
    which = method.parameters
    if not method.adapts or method.adapter:
        return []
    if not model.norms:
        raise UsageError(
            f"{model.name!r} ({type(model.network).__name__}) has no LayerNorm or RMSNorm with weights, which are "
            f"what {method.name!r} adapts; use a model that has them, or a method that adapts nothing, such as 'source'"
        )
    if is_plugin(which):
        names = list(model.norms)
        with calling("parameters", which):
            selected = list(load("parameters", which)([_short(name) for name in names]))
        chosen = [name for name in names if _short(name) in selected]
        if not chosen or len(chosen) < len(set(selected)):
            raise refuse_result(
                "parameters", which, f"{selected!r}", f"some of the names it was passed, such as {_short(names[0])!r}"
            )
        return chosen
    if model.layout == "ctc" and method.objective == "suta":
        return list(dict.fromkeys([*model.norms, *model.features()]))
    return list(model.norms) if which == "layernorm" else model.half(which.removesuffix("-layernorm"))


def _short(name: str) -> str:
    return name.removeprefix("model.")


def _gradients(loss: Loss, parameters: Sequence[Tensor]) -> list[Tensor | None]:
    # A norm that the loss does not depend on, such as one after the last layer used, has no gradient.
    return list(torch.autograd.grad(loss.total.sum(), parameters, allow_unused=True))


def _norm(gradients: Sequence[Tensor | None]) -> Tensor:
    squares = [gradient.square().sum() for gradient in gradients if gradient is not None]
    return torch.stack(squares).sum().sqrt()


def _update(loss: Loss, entropy: Tensor, gradients: Sequence[Tensor | None], candidates: Hypotheses) -> Update:
    policy, entropic, advantage = loss.policy, loss.entropy, loss.advantage
    return Update(
        loss=loss.total.detach(),
        policy_loss=None if policy is None else policy.detach(),
        entropy_loss=None if entropic is None else entropic.detach(),
        candidate_entropy=entropy,
        advantage_std=None if advantage is None else advantage[..., 0].std(-1, correction=0),
        gradient_norm=_norm(gradients).view(1),
        candidate_tokens=candidates.mask.sum(-1).to(entropy.dtype).mean(-1),
    )
