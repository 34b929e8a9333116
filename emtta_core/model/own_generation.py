"""Sequences and logits of one utterance, with a network's own forward pass and generation (`TransformersModel`).

Sequences come from `generate()` with its cache: greedy and best beams as found by transformers, and samples whose
tokens are chosen by a strategy instead of transformers' own sampling. Logits of given sequences come from one forward
pass with the same processors (suppressed tokens, penalties) as in generation, so both use the same distribution.
"""

import inspect
from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import GenerationMixin, LogitsProcessor, LogitsProcessorList
from transformers.modeling_outputs import ModelOutput

from emtta_core.errors import UsageError
from emtta_core.model.candidates import Frontier, Hypotheses, Strategy
from emtta_core.model.family import warnings_off
from emtta_core.model.transformers_model import TransformersModel


class Utterance(NamedTuple):
    """One utterance as the input of a network."""

    inputs: dict[str, Tensor]  # by the names of the network's arguments
    prompt: Tensor  # `(1, P)`, what the decoder begins with; empty if transformers adds it
    limit: int  # the maximum number of tokens of a sequence, including the end token


class Sequences:
    """Sequences of an utterance from a network with its current parameters; after an update, create a new one."""

    def __init__(self, model: TransformersModel, utterance: Utterance):
        """Prepare; the encoder's output is computed lazily."""
        self._model, self._utterance, self._network = model, utterance, model.network
        # Generation needs no gradients, but may be the first to compute the encoder's output.
        self._graph = torch.is_grad_enabled()

    def greedy(self) -> Hypotheses:
        """The greedy hypothesis `(1, 1, T)`, with its entropy."""
        output = self._generate(1, output_scores=True)
        hypotheses = self._hypotheses(output.sequences)
        scores = torch.stack(output.scores, 1)[0, : hypotheses.mask.shape[-1]].to(self._model.dtype)
        entropy = torch.special.entr(scores.softmax(-1)).sum(-1)[hypotheses.mask[0, 0]].mean()
        return Hypotheses(hypotheses.tokens, hypotheses.mask, hypotheses.ended, entropy.view(1, 1))

    def beams(self, count: int) -> Hypotheses:
        """The best beams `(1, R, T)`, best first, of a search with the settings of the generation config."""
        output = self._generate(1, num_beams=count, num_return_sequences=count)
        return self._hypotheses(output.sequences)

    def generate_with(self, strategy: Strategy) -> Hypotheses:
        """The sequences `(1, R, T)` whose tokens a strategy chooses, each row continuing itself."""
        steered = _Steered(strategy, self._utterance.limit, self._model.ends[0])
        output = self._generate(strategy.rows, logits_processor=LogitsProcessorList([steered]))
        return self._hypotheses(output.sequences)

    def logits(self, hypotheses: Hypotheses) -> Tensor:
        """The policy's logits `(G, T, V)` that each token of sequences `(1, G, T)` was chosen from, with a gradient."""
        tokens = hypotheses.tokens[0]
        prompt, processors = self._prepare(len(tokens))
        begin = prompt.shape[1]
        sequences = torch.cat([prompt, tokens], 1)
        inputs = self._inputs(len(tokens), sequences[:, :-1])
        with self._model.arithmetic():
            raw = self._network(**inputs, use_cache=False).logits[:, begin - 1 :]
        steps = range(tokens.shape[1])
        return torch.stack([processors(sequences[:, : begin + step], raw[:, step]) for step in steps], 1)

    @cached_property
    def _encoded(self) -> Any:
        encoder = self._network.get_encoder()
        accepted = inspect.signature(encoder.forward).parameters
        with torch.set_grad_enabled(self._graph), self._model.arithmetic():
            return encoder(**{name: tensor for name, tensor in self._utterance.inputs.items() if name in accepted})

    def _inputs(self, rows: int, tokens: Tensor | None = None) -> dict[str, Any]:
        # The network's inputs for this many sequences, for generation, or with their tokens `(rows, L)`, for scoring.
        inputs = {
            name: tensor.repeat(rows, *[1] * (tensor.dim() - 1)) for name, tensor in self._utterance.inputs.items()
        }
        if self._model.layout == "decoder":
            if tokens is not None:
                inputs |= {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
            return inputs
        # Of the encoder's inputs, the decoder needs only the masks.
        inputs = {name: tensor for name, tensor in inputs.items() if name.endswith("mask")}
        inputs["encoder_outputs"] = _repeated(self._encoded, rows, detach=tokens is None)
        begin = self._utterance.prompt.expand(rows, -1) if tokens is None else tokens
        return inputs | ({"decoder_input_ids": begin} if begin.numel() else {})

    def _generate(self, rows: int, **settings: Any) -> Any:
        with torch.no_grad(), self._model.arithmetic(), warnings_off():
            return self._network_generate(
                **self._inputs(rows), max_new_tokens=self._utterance.limit, return_dict_in_generate=True, **settings
            )

    def _prepare(self, rows: int) -> tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]:
        # The beginning of this many sequences, and the processors of their logits, as prepared by generation.
        captured: list[Any] = []

        def capture(_: Any, input_ids: Tensor, logits_processor: Any = None, **__: Any) -> Tensor:
            captured.extend((input_ids, logits_processor))
            return input_ids

        with torch.no_grad(), warnings_off():
            self._network_generate(**self._inputs(rows), max_new_tokens=self._utterance.limit, custom_generate=capture)
        return captured[0], captured[1]

    @property
    def _network_generate(self) -> Callable[..., Any]:
        # Whisper's own generate() removes the prompt and the end token from its result; its base class does not.
        if self._network.config.model_type == "whisper":
            bound: Callable[..., Any] = GenerationMixin.generate.__get__(self._network)
            return bound
        generate: Callable[..., Any] = self._network.generate
        return generate

    def _hypotheses(self, sequences: Tensor) -> Hypotheses:
        # The part of whole sequences `(R, P + T)` after the prompt, up to and including the first end token.
        begin = self._utterance.inputs.get("input_ids", self._utterance.prompt).shape[1]
        tokens = sequences[:, begin:] if begin else sequences[:, 1:]
        ends = torch.isin(tokens, torch.tensor(self._model.ends, device=tokens.device))
        mask = (ends.cumsum(1) - ends.long()) == 0
        ended = (ends & mask).any(1)
        longest = int(mask.sum(1).max())
        kept = tokens.masked_fill(~mask, self._model.ends[0])[:, :longest]
        return Hypotheses(kept.unsqueeze(0), mask[:, :longest].unsqueeze(0), ended.unsqueeze(0))


class Frames:
    """The frames of an utterance from a CTC network with its current parameters: a frame's class is its token."""

    def __init__(self, model: TransformersModel, utterance: Utterance):
        """Prepare; the network's output is computed lazily."""
        self._model, self._utterance = model, utterance

    @cached_property
    def _frame_logits(self) -> Tensor:
        with self._model.arithmetic():
            logits: Tensor = self._model.network(**self._utterance.inputs).logits
        return logits.to(self._model.dtype)

    def greedy(self) -> Hypotheses:
        """The most probable class of each frame, `(1, 1, T)`, with their mean entropy."""
        logits = self._frame_logits.detach()
        entropy = torch.special.entr(logits.softmax(-1)).sum(-1).mean()
        tokens = logits.argmax(-1).unsqueeze(1)
        ended = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return Hypotheses(tokens, torch.ones_like(tokens, dtype=torch.bool), ended, entropy.view(1, 1))

    def logits(self, _: Hypotheses) -> Tensor:
        """The logits `(1, T, V)` of all frames, with a gradient."""
        return self._frame_logits


class _Steered(LogitsProcessor):  # type: ignore[misc]  # transformers has no types
    """Masks all but the token that a strategy chooses in each row's logits."""

    def __init__(self, strategy: Strategy, limit: int, end: int):
        self._strategy, self._limit, self._end = strategy, limit, end
        self._step = 0

    def __call__(self, _: Tensor, scores: Tensor) -> Tensor:
        if self._step == 0:
            self._strategy.begin(torch.tensor([self._limit], device=scores.device), self._end, scores[:1])
        nodes = torch.arange(len(scores), device=scores.device).unsqueeze(0)
        tokens, parents = self._strategy.advance(self._step, Frontier(scores, scores, nodes))
        if parents is not None:
            raise UsageError(
                f"the candidates of {type(self._strategy).__name__} continue each other, but on the generic path each "
                "must continue itself: use 'beam', or a source whose strategy returns None for the parents"
            )
        self._step += 1
        return torch.full_like(scores, -torch.inf).scatter(1, tokens.view(-1, 1), 0.0)


def _repeated(outputs: Any, rows: int, *, detach: bool) -> Any:
    # An encoder's output for one utterance, repeated for this many sequences.
    def each(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        return (value.detach() if detach else value).repeat_interleave(rows, 0)

    repeated: ModelOutput = type(outputs)(**{name: each(value) for name, value in outputs.items()})
    return repeated


def encode(model: TransformersModel, waveform: Any, language: str) -> Utterance:
    """Compute what stays the same throughout an utterance's episode from its waveform `(N,)`."""
    inputs = model.front_end(waveform, device=model.device, dtype=model.dtype)
    prompt = model.prompt.rows([language], model.device).long()
    return Utterance(inputs, prompt, model.max_tokens(len(waveform), language))
