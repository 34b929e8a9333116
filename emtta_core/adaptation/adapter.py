"""The public interface of the engine: waveforms in, hypotheses and traces out."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from emtta_core.adaptation.batch_size import BatchSize, BatchSizeChoice
from emtta_core.adaptation.episode import State
from emtta_core.adaptation.flags import flags_of
from emtta_core.adaptation.inputs import (
    Recording,
    check_waveform,
    content_id,
    one_per_utterance,
    read_recording,
    recordings_of,
)
from emtta_core.adaptation.mbr import choose
from emtta_core.adaptation.methods import Method, Objective
from emtta_core.adaptation.methods import method as method_of
from emtta_core.adaptation.objective import check_objective
from emtta_core.adaptation.optimizer import Carried
from emtta_core.adaptation.options import Options, Trace
from emtta_core.adaptation.parts import MethodAdapter, Utterances, call_adapter, calling, load
from emtta_core.adaptation.paths import check_path, check_stream, states_of
from emtta_core.adaptation.results import AdaptationResult, Final, StepRecord, divergence, has_worsened, number
from emtta_core.adaptation.threads import sized_threads
from emtta_core.errors import AudioError, UsageError, in_words, unknown
from emtta_core.faults import is_out_of_memory
from emtta_core.model.speech_model import Model

log = logging.getLogger("emtta.adaptation")

DEFAULTS = Options()


class Adapter:
    """Transcribes utterances, each after adapting the model to it alone.

    An adapter never changes the model, and keeps nothing from one call to the next but the batch size.

    Attributes:
        model: the model to adapt.
        method: the adaptation method.
        options: the method's options.

    Example:
        model = load_model("demo")
        adapter = Adapter(model, method="em-tok-b", steps=10, candidates=8)
        results = adapter.transcribe(waveforms, language="en", utterance_ids=ids)
    """

    def __init__(
        self,
        model: Model,
        method: str | Method = "em-tok-b",
        options: Options = DEFAULTS,
        *,
        batch_size: BatchSizeChoice = "auto",
        trace: Trace = "hypotheses",
        **changes: Any,
    ):
        """Choose how to adapt.

        Args:
            model: from `load_model`.
            method: a name in `emtta_core.adaptation.METHODS`, or a custom `Method`.
            options: the method's options.
            batch_size: the maximum number of utterances in a batch, or "auto": as many as fit in memory. It is halved
                on running out of memory, and does not change the results.
            trace: "hypotheses": a record for every state, with its greedy hypothesis; "metrics": the same, but with
                only the hypotheses of the first and the last state; "none": no records. It does not change the results.
            changes: fields of `options` to override, such as `steps=5`.

        Raises:
            UsageError: for an unknown method or option, a number out of range, or a plug-in that cannot be imported.
        """
        if not isinstance(model, Model):
            raise TypeError(f"model is {model!r}; pass what load_model returns, as in Adapter(load_model('demo'))")
        if trace not in get_args(Trace):
            raise unknown("trace", str(trace), get_args(Trace))
        self.model = model
        self.method = method_of(method) if isinstance(method, str) else method
        self.options = options.changed(**changes)
        self._trace = trace
        self.method.check()
        check_path(model, self.method)
        if isinstance(self.method.objective, Objective):
            check_objective(self.method.objective)
        maximum = model.policy.first_tokens // 2  # a search considers twice as many continuations as it has beams
        for name in ("candidates", "beams"):
            if name in self.method.options and getattr(self.options, name) > maximum:
                raise UsageError(
                    f"{name} is {getattr(self.options, name)}; with {model.policy.first_tokens} tokens that may begin "
                    f"a transcript, this model allows at most {maximum}"
                )
        self._size = BatchSize(batch_size, model, self.method, self.options)
        self._plugin_adapter: MethodAdapter | None = None
        if self.method.adapter:
            with calling("adapter", self.method.adapter):
                self._plugin_adapter = load("adapter", self.method.adapter)(model, self.options)

    @property
    def batch_size(self) -> int:
        """Utterances per batch: as requested, or the most that fitted in memory."""
        return self._size.largest

    def transcribe(
        self,
        waveforms: Iterable[Recording],
        language: str | Sequence[str] = "en",
        utterance_ids: Sequence[str] | None = None,
        *,
        progress: bool = False,
    ) -> list[AdaptationResult]:
        """Adapt to each utterance and return the results in the given order.

        Args:
            waveforms: for each utterance, mono samples at the model's sample rate with full scale 1.0, or an audio
                file; see `emtta_core.adaptation.inputs.Recording`.
            language: one language code for all utterances, or one for each.
            utterance_ids: an id for each, which seeds its random numbers. None: the digest of the waveform.
            progress: whether to show a progress bar on standard error.

        Raises:
            TypeError: if this is not a list of utterances, or an utterance is neither samples nor a path.
            UsageError: for a language that the model does not know, or lists of different lengths. A waveform or a file
                that cannot be used, or does not fit in memory even alone, raises nothing: its result has an error,
                which is also logged, and the others are not affected.
        """
        return _in_order(self._run(waveforms, language, utterance_ids, progress=progress))

    def batches(
        self,
        waveforms: Iterable[Recording],
        language: str | Sequence[str] = "en",
        utterance_ids: Sequence[str] | None = None,
    ) -> Iterator[list[AdaptationResult]]:
        """Like `transcribe`, but yield each batch's results as it finishes: unusable input first, then by duration."""
        for _, batch in self._run(waveforms, language, utterance_ids):
            yield batch

    def carry(
        self,
        waveforms: Iterable[Recording],
        language: str | Sequence[str],
        utterance_ids: Sequence[str],
        states: list[Carried | None],
    ) -> list[AdaptationResult]:
        """Adapt to the next utterance of each of several streams.

        Args:
            waveforms: one utterance per stream; no stream affects the result of another.
            language: as in `transcribe`.
            utterance_ids: as in `transcribe`; utterances of different streams may have the same id.
            states: the state of each stream, None for the source model; updated in place. An utterance that fails, is
                not adapted to, or is reverted (`revert`) leaves its stream's state unchanged.

        Raises:
            UsageError: as in `transcribe`; or the method is a plug-in with its own loop, or the model is on the generic
                path, neither of which carries state.
        """
        check_stream(self.model)
        if self._plugin_adapter is not None:
            raise UsageError(f"the adapter {self.method.adapter!r} carries no state from one utterance to the next")
        return _in_order(self._run(waveforms, language, utterance_ids, states=states))

    def _run(
        self,
        waveforms: Iterable[Recording],
        language: str | Sequence[str],
        utterance_ids: Sequence[str] | None,
        *,
        progress: bool = False,
        states: list[Carried | None] | None = None,
    ) -> Iterator[tuple[list[int], list[AdaptationResult]]]:
        recordings = recordings_of(waveforms)
        count = len(recordings)
        languages = [language] * count if isinstance(language, str) else one_per_utterance("language", language, count)
        ids = None if utterance_ids is None else one_per_utterance("utterance_ids", utterance_ids, count)
        self.model.prompt.rows(sorted(set(languages)), self.model.device)
        signals: dict[int, NDArray[np.float32]] = {}
        names: dict[int, str] = {}
        refused: dict[int, AdaptationResult] = {}
        for index, recording in enumerate(recordings):
            label = f"waveforms[{index}]"
            names[index] = label if ids is None else ids[index]
            try:
                signal = read_recording(recording, label, self.model)
                names[index] = content_id(signal) if ids is None else ids[index]
                signals[index] = check_waveform(signal, self.model)
            except AudioError as error:
                refused[index] = _refused(names[index], str(error))
                log.warning("%s is left out: %s", names[index] if ids else label, error)
        if refused:
            yield list(refused), list(refused.values())
        with _progress_bar(len(signals) if progress else 0) as advance:
            yield from self._batches(signals, languages, names, advance, states)

    def _batches(
        self,
        signals: dict[int, NDArray[np.float32]],
        languages: Sequence[str],
        ids: Mapping[int, str],
        advance: Callable[[float], None],
        states: list[Carried | None] | None,
    ) -> Iterator[tuple[list[int], list[AdaptationResult]]]:
        # The batches of usable utterances; `advance` receives the progress of each step, in utterances.
        # Utterances of similar duration end together; ids break ties, so that batches do not depend on the input order.
        order = sorted(signals, key=lambda index: (len(signals[index]), ids[index]))
        limits = {index: self.model.max_tokens(len(signals[index]), languages[index]) for index in order}
        while order:
            upcoming = [limits[index] for index in order[: self._size.maximum]]
            chosen = order[: self._size.fitting(upcoming)]
            stream_states = None if states is None else [states[index] for index in chosen]
            results = self._adapt_if_memory_suffices(
                [signals[index] for index in chosen],
                [languages[index] for index in chosen],
                [ids[index] for index in chosen],
                [limits[index] for index in chosen],
                advance,
                stream_states,
            )
            if results is not None:
                order = order[len(chosen) :]
                if states is not None and stream_states is not None:
                    for index, state in zip(chosen, stream_states, strict=True):
                        states[index] = state
                yield chosen, results

    def _adapt_if_memory_suffices(
        self,
        waveforms: list[NDArray[np.float32]],
        languages: list[str],
        ids: list[str],
        limits: list[int],
        advance: Callable[[float], None],
        stream_states: list[Carried | None] | None,
    ) -> list[AdaptationResult] | None:
        """Run the episodes of one batch; on running out of memory, halve the batch size and return None.

        A batch of one cannot be halved: its result has an error instead.
        """
        started, advanced = time.perf_counter(), 0.0

        def step_done(episodes: int) -> None:
            nonlocal advanced
            share = episodes / (self.options.steps + 1)
            advanced += share
            advance(share)

        try:
            with sized_threads(self.model):
                results = self._adapt(waveforms, languages, ids, step_done, stream_states)
            advance(len(ids) - advanced)
            return results
        except Exception as error:
            advance(-advanced)
            if not is_out_of_memory(error):
                raise
            reason = in_words(error)
        # Memory can be released only here, where the exception no longer references the tensors.
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(ids) == 1:
            too_large = self._size.out_of_memory_message(len(waveforms[0]) / self.model.sample_rate, reason)
            log.warning("utterance %s: %s", ids[0], too_large)
            advance(1)
            return [_refused(ids[0], too_large, seconds=time.perf_counter() - started)]
        half = self._size.halve(limits)
        log.warning("out of memory with %d utterances per batch; continuing with %d", len(ids), half)
        return None

    def _adapt(
        self,
        waveforms: list[NDArray[np.float32]],
        languages: list[str],
        ids: list[str],
        step_done: Callable[[int], None],
        stream_states: list[Carried | None] | None,
    ) -> list[AdaptationResult]:
        with self.model.precision.arithmetic(self.model.device):
            started = time.perf_counter()
            batch = Utterances(ids, waveforms, languages)
            if self._plugin_adapter is not None:
                returned = call_adapter(self._plugin_adapter, self.method.adapter, batch)
                seconds = (time.perf_counter() - started) / len(ids)
                traced = self._trace != "none"
                return [replace(one, seconds=seconds, trace=one.trace if traced else ()) for one in returned]
            states, source, carried = states_of(
                self.model, self.method, self.options, batch, self._trace, step_done, stream_states
            )
            traces: list[list[StepRecord]] = [[] for _ in ids]
            finals: dict[int, Final] = {}
            for state in states:
                columns = self._columns(state)
                for index, row in enumerate(state.rows.tolist()):
                    values = {name: column[index] for name, column in columns.items()}
                    traces[row].append(StepRecord(len(traces[row]), **values))
                if state.update is None:
                    finals |= self._finals(state)
            reverts = self.options.revert
            reverted = [row for row, trace in enumerate(traces) if reverts and has_worsened(trace, finals[row].text)]
            if reverted:
                finals |= self._finals(source(reverted))
        seconds = (time.perf_counter() - started) / len(ids)
        results = [
            self._result(name, traces[row], finals[row], seconds, reverted=row in reverted)
            for row, name in enumerate(ids)
        ]
        if stream_states is not None and carried is not None:
            for row, (result, finite) in enumerate(zip(results, carried.finite(), strict=True)):
                if finite and result.error is None and result.updates and row not in reverted:
                    stream_states[row] = carried.row(row)
        return results

    def _result(
        self, name: str, trace: list[StepRecord], final: Final, seconds: float, *, reverted: bool
    ) -> AdaptationResult:
        error, first, last = divergence(trace, self.method.objective), trace[0], trace[-1]
        gated = len(trace) == 1 and self.method.candidates != "none"
        return AdaptationResult(
            utterance_id=name,
            hypothesis="" if error else final.text,
            source_hypothesis=first.hypothesis or "",
            entropy_before=number(first.entropy),
            entropy_after=math.nan if error else number(last.entropy),
            trace=() if self._trace == "none" else tuple(trace),
            seconds=seconds,
            updates=len(trace) - 1,
            tokens=None if error else final.tokens,
            source_tokens=None if error else first.tokens,
            greedy_tokens=None if error else last.tokens,
            error=error,
            flags=() if error else flags_of(final.text, ended=final.ended, gated=gated, reverted=reverted),
        )

    def _finals(self, state: State) -> dict[int, Final]:
        # The hypotheses chosen in a last state, by the row of their utterance.
        hypotheses = state.greedy if state.choices is None else state.choices
        assert hypotheses is not None
        count = hypotheses.tokens.shape[1]
        texts = self.model.texts(hypotheses.tokens.flatten(0, 1), hypotheses.mask.flatten(0, 1))
        finals = {}
        columns = (state.rows, hypotheses.mask.sum(-1), hypotheses.ended)  # each copied to the host in one transfer
        for index, (row, lengths, ends) in enumerate(zip(*(column.tolist() for column in columns), strict=True)):
            choices = texts[count * index : count * (index + 1)]
            chosen = choose(self.method.decision, choices)
            finals[row] = Final(choices[chosen], lengths[chosen], ends[chosen])
        return finals

    def _columns(self, state: State) -> dict[str, list[Any]]:
        # The fields of a state's records, by name: one value per episode.
        columns: dict[str, list[Any]] = {}
        if state.greedy is not None and state.greedy.entropy is not None:
            tokens, mask = state.greedy.tokens[:, 0], state.greedy.mask[:, 0]
            columns["hypothesis"] = list(self.model.texts(tokens, mask))
            columns["entropy"] = state.greedy.entropy[:, 0].tolist()
            columns["tokens"] = mask.sum(-1).tolist()
        if state.update is not None:
            updates = {name: numbers for name, numbers in state.update._asdict().items() if numbers is not None}
            columns |= {name: numbers.tolist() for name, numbers in updates.items()}
        return columns


def _in_order(batches: Iterable[tuple[list[int], list[AdaptationResult]]]) -> list[AdaptationResult]:
    results = {index: result for batch in batches for index, result in zip(*batch, strict=True)}
    return [results[index] for index in sorted(results)]


def _refused(name: str, error: str, seconds: float = 0.0) -> AdaptationResult:
    return AdaptationResult(name, "", "", math.nan, math.nan, (), seconds, error=error)


@contextmanager
def _progress_bar(utterances: int) -> Iterator[Callable[[float], None]]:
    # Show a progress bar for this many utterances (none for 0) inside the `with` block, and yield its advance function.
    if not utterances:
        yield lambda _: None
        return
    from tqdm.auto import tqdm

    shape = "{l_bar}{bar}| {n:.0f}/{total} utterances [{elapsed}<{remaining}]"
    with tqdm(total=utterances, desc="adapting", bar_format=shape) as bar:

        def advance(share: float) -> None:
            bar.update(share)

        yield advance
