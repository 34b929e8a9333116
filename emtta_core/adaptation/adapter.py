"""The public face of the engine: waveforms in, hypotheses and traces out."""

import hashlib
import logging
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from emtta_core.adaptation.episode import Options, Update, prepare_batch, run
from emtta_core.adaptation.methods import method as method_of
from emtta_core.adaptation.results import AdaptationResult, StepRecord
from emtta_core.errors import AudioError, UsageError
from emtta_core.memory import is_out_of_memory
from emtta_core.model.candidates import Hypotheses
from emtta_core.model.speech_model import SpeechModel

log = logging.getLogger("emtta.adaptation")

WEIGHT_DECAY = 0.01
"""Of AdamW. The paper says AdamW and a learning rate; this is torch's default, taken to be what it used."""

SILENCE = 1.0e-5
"""A waveform whose peak is below this, full scale being 1, is refused as silent."""

COLLAPSED_ENTROPY = 0.05
"""Nats a token under which a hypothesis that repeats itself counts as collapsed."""

COLLAPSED_SHARE = 0.5
"""A hypothesis repeats itself if fewer than this share of its tokens are distinct."""


class Adapter:
    """Transcribes utterances, each after adapting the model to it alone.

    An adapter never changes the model, and keeps nothing from one call to the next but the size of a batch.

    Attributes:
        model: what is adapted.
        options: how.
        batch_size: utterances adapted side by side; halved where memory does not suffice, which changes no result.

    Example:
        model = load_model("demo")
        adapter = Adapter(model, method="em-tok-b", steps=10, candidates=8)
        results = adapter.transcribe(waveforms, language="en", utterance_ids=ids)
    """

    def __init__(
        self,
        model: SpeechModel,
        method: str = "em-tok-b",
        *,
        steps: int = 10,
        candidates: int = 8,
        learning_rate: float = 1e-3,
        weight_decay: float = WEIGHT_DECAY,
        seed: int = 0,
        batch_size: int = 16,
        decode_each_step: bool = True,
    ):
        """Choose how to adapt.

        Args:
            model: from `load_model`.
            method: a name in `emtta_core.adaptation.methods.METHODS`.
            steps: updates an utterance.
            candidates: candidate sequences a step, for methods that sample or search.
            learning_rate: of AdamW.
            weight_decay: of AdamW.
            seed: of the sampled candidates.
            batch_size: utterances adapted side by side, at most; it does not change a result.
            decode_each_step: whether the trace has a greedy hypothesis for every state, or for the first and last.

        Raises:
            UsageError: for a method that there is not, or a number out of range.
        """
        self.model = model
        self.options = Options(
            method=method_of(method),
            steps=_at_least("steps", steps, 1),
            candidates=_at_least("candidates", candidates, 1),
            learning_rate=_positive("learning_rate", learning_rate),
            weight_decay=_not_negative("weight_decay", weight_decay),
            seed=int(seed),
            decode_each_step=decode_each_step,
        )
        self.batch_size = _at_least("batch_size", batch_size, 1)
        most = len(model.policy.bias) // 2
        if candidates > most:
            raise UsageError(f"candidates is {candidates}; this model's vocabulary allows at most {most}")

    def transcribe(
        self,
        waveforms: Sequence[NDArray[np.floating[Any]]],
        language: str | Sequence[str] = "en",
        utterance_ids: Sequence[str] | None = None,
    ) -> list[AdaptationResult]:
        """Adapt to each utterance and return its result, in the order given.

        Args:
            waveforms: mono samples at the model's sample rate, full scale 1.0.
            language: code of all utterances' language, or of each.
            utterance_ids: an id for each; random numbers are drawn by it. None: the digest of the waveform.

        Raises:
            UsageError: for a language that the model does not know, or lists of different lengths. A waveform that
                cannot be used raises nothing: its result has an error, and the others are unharmed.
            MemoryError: where memory does not even suffice for one utterance, or what torch raises then.
        """
        results: dict[int, AdaptationResult] = {}
        for indices, batch in self._run(waveforms, language, utterance_ids):
            results.update(zip(indices, batch, strict=True))
        return [results[index] for index in range(len(waveforms))]

    def batches(
        self,
        waveforms: Sequence[NDArray[np.floating[Any]]],
        language: str | Sequence[str] = "en",
        utterance_ids: Sequence[str] | None = None,
    ) -> Iterator[list[AdaptationResult]]:
        """Do the same, and yield the results of each batch when it is done: the unusable first, then by duration."""
        for _, batch in self._run(waveforms, language, utterance_ids):
            yield batch

    def _run(
        self,
        waveforms: Sequence[NDArray[np.floating[Any]]],
        language: str | Sequence[str],
        utterance_ids: Sequence[str] | None,
    ) -> Iterator[tuple[list[int], list[AdaptationResult]]]:
        """Yield each batch's places in the input, and its results."""
        count = len(waveforms)
        languages = [language] * count if isinstance(language, str) else list(language)
        ids = [content_id(waveform) for waveform in waveforms] if utterance_ids is None else list(utterance_ids)
        for what, given in (("languages", languages), ("utterance ids", ids)):
            if len(given) != count:
                raise UsageError(f"{len(given)} {what} were given for {count} waveforms; give one for each")
        self.model.prompt.rows(sorted(set(languages)), self.model.device)
        signals: dict[int, NDArray[np.float32]] = {}
        refused: dict[int, AdaptationResult] = {}
        for index, waveform in enumerate(waveforms):
            try:
                signals[index] = check_waveform(waveform, self.model)
            except AudioError as error:
                refused[index] = AdaptationResult(ids[index], "", "", math.nan, math.nan, (), 0.0, error=str(error))
        if refused:
            yield list(refused), list(refused.values())
        # Utterances of like duration end together; ids break ties, so that batches do not depend on the order given.
        order = sorted(signals, key=lambda index: (len(signals[index]), ids[index]))
        while order:
            chosen = order[: self.batch_size]
            results = self._adapt_if_memory_suffices(
                [signals[index] for index in chosen],
                [languages[index] for index in chosen],
                [ids[index] for index in chosen],
            )
            if results is not None:
                order = order[len(chosen) :]
                yield chosen, results

    def _adapt_if_memory_suffices(
        self, waveforms: list[NDArray[np.float32]], languages: list[str], ids: list[str]
    ) -> list[AdaptationResult] | None:
        """Run the episodes of one batch; where memory does not hold it, halve `batch_size` and return None."""
        try:
            return self._adapt(waveforms, languages, ids)
        except Exception as error:
            if not is_out_of_memory(error) or len(ids) == 1:
                raise
        # Only here, where the error no longer holds on to what was computed, can its memory be given back.
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        self.batch_size = len(ids) // 2
        log.warning("out of memory with %d utterances side by side; going on with %d", len(ids), self.batch_size)
        return None

    def _adapt(
        self, waveforms: list[NDArray[np.float32]], languages: list[str], ids: list[str]
    ) -> list[AdaptationResult]:
        """Run the episodes of one batch."""
        began = time.perf_counter()
        states, _ = run(self.model, self.options, prepare_batch(self.model, waveforms, languages, ids))
        traces: list[list[StepRecord]] = [[] for _ in ids]
        for step, state in enumerate(states):
            hypotheses = self._hypotheses(state.greedy, len(ids))
            updates = _updates(state.update, len(ids))
            for trace, hypothesis, update in zip(traces, hypotheses, updates, strict=True):
                trace.append(StepRecord(step, *hypothesis, *update))
        final = states[-1].greedy
        assert final is not None
        said = [tokens[mask].tolist() for tokens, mask in zip(final.tokens[:, 0], final.mask[:, 0], strict=True)]
        ends = final.ended[:, 0].tolist()
        seconds = (time.perf_counter() - began) / len(ids)
        results = []
        for name, trace, tokens, ended in zip(ids, traces, said, ends, strict=True):
            error, last = _divergence(trace), trace[-1]
            results.append(
                AdaptationResult(
                    utterance_id=name,
                    text="" if error else last.text or "",
                    source_text=trace[0].text or "",
                    entropy_before=_number(trace[0].entropy),
                    entropy_after=math.nan if error else _number(last.entropy),
                    trace=tuple(trace),
                    seconds=seconds,
                    flags=() if error else flags_of(tokens, last.text, last.entropy, ended=ended),
                    error=error,
                )
            )
        return results

    def _hypotheses(self, greedy: Hypotheses | None, count: int) -> list[tuple[str | None, float | None, int | None]]:
        """Return the text, mean entropy and length of B greedy hypotheses."""
        if greedy is None:
            return [(None, None, None)] * count
        assert greedy.entropy is not None
        texts = self.model.texts(greedy.tokens[:, 0], greedy.mask[:, 0])
        lengths = greedy.mask[:, 0].sum(-1).tolist()
        return list(zip(texts, greedy.entropy[:, 0].tolist(), lengths, strict=True))


def flags_of(tokens: Sequence[int], text: str | None, entropy: float | None, *, ended: bool) -> tuple[str, ...]:
    """Return what is wrong with a final hypothesis, of "truncated" and "collapsed".

    Args:
        tokens: what was said, the end token too.
        text: as text.
        entropy: mean, nats a token.
        ended: whether it ended by itself.
    """
    repeats = len(set(tokens)) < COLLAPSED_SHARE * len(tokens) and _number(entropy) < COLLAPSED_ENTROPY
    collapsed = not text or repeats
    return (*(() if ended else ("truncated",)), *(("collapsed",) if collapsed else ()))


def check_waveform(waveform: NDArray[np.floating[Any]], model: SpeechModel) -> NDArray[np.float32]:
    """Return the waveform as float32 samples `(N,)`.

    Raises:
        AudioError: if it is not 1-D, is empty, has NaN or infinity, is silent, or is longer than the model's window.
    """
    signal = np.asarray(waveform)
    if signal.ndim != 1:
        raise AudioError(f"the waveform has the shape {signal.shape}; give mono samples, of shape (N,)")
    if signal.size == 0:
        raise AudioError("the waveform is empty; it must have at least one sample")
    if not np.issubdtype(signal.dtype, np.floating):
        raise AudioError(f"the waveform's samples are {signal.dtype}; give floating point, full scale 1.0")
    bad = int(signal.size - np.isfinite(signal).sum())
    if bad:
        raise AudioError(
            f"the waveform has {bad} samples of {signal.size} that are NaN or infinite; all must be finite"
        )
    peak = float(np.abs(signal).max())
    if peak < SILENCE:
        raise AudioError(f"the waveform is silent: its peak is {peak:.3g}; it must be at least {SILENCE:g}")
    if signal.size > model.mel.samples:
        raise AudioError(
            f"the waveform is {signal.size / model.sample_rate:.2f} s long; {model.name!r} takes at most "
            f"{model.max_seconds:g} s: cut it"
        )
    return signal.astype(np.float32, copy=False)


def content_id(waveform: NDArray[np.floating[Any]]) -> str:
    """Return an id that is the same wherever the same waveform stands."""
    return hashlib.sha256(np.ascontiguousarray(waveform).tobytes()).hexdigest()[:16]


def _updates(update: Update | None, count: int) -> list[tuple[float | None, ...]]:
    """Return the numbers of B updates, in the order of `StepRecord`'s fields."""
    if update is None:
        return [(None,) * 7] * count
    loss = update.loss
    spread = loss.advantage.std(-1, correction=0)
    columns = (
        loss.total,
        loss.policy,
        loss.entropy,
        update.entropy,
        spread,
        update.gradient_norm,
        update.tokens,
    )
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _divergence(trace: Sequence[StepRecord]) -> str | None:
    """Return what to say of an episode whose numbers are no longer finite, None of a sound one."""
    for record in trace:
        for value in (record.entropy, record.loss, record.gradient_norm):
            if value is not None and not math.isfinite(value):
                return f"the adaptation diverged: at step {record.step} a number is not finite; lower the learning rate"
    return None


def _number(value: float | None) -> float:
    """Return the value, NaN for none."""
    return math.nan if value is None else value


def _at_least(name: str, value: int, least: int) -> int:
    """Return an option's value.

    Raises:
        UsageError: if it is not a whole number of at least `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise UsageError(f"{name} is {value!r}; it must be a whole number, at least {least}")
    return int(value)


def _positive(name: str, value: float) -> float:
    """Return an option's value.

    Raises:
        UsageError: if it is not above 0.
    """
    if not (math.isfinite(value) and value > 0):
        raise UsageError(f"{name} is {value!r}; it must be a number above 0")
    return float(value)


def _not_negative(name: str, value: float) -> float:
    """Return an option's value.

    Raises:
        UsageError: if it is below 0.
    """
    if not (math.isfinite(value) and value >= 0):
        raise UsageError(f"{name} is {value!r}; it must be a number, 0 or above")
    return float(value)
