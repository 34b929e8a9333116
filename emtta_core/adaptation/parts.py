"""Plug-ins: the parts of a method that other packages bring, as `package.module:object`.

Each kind of part has a protocol (`emtta_core.plugins` says how a plug-in is found, and told from others). Nothing here
needs torch; docs/extending.md shows how a part is written.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, Protocol

from emtta_core.errors import EmttaError, UsageError, in_words
from emtta_core.faults import is_out_of_memory
from emtta_core.plugins import import_plugin, is_plugin

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from emtta_core.adaptation.objective import Loss
    from emtta_core.adaptation.options import Options
    from emtta_core.adaptation.results import AdaptationResult
    from emtta_core.adaptation.scored import ScoredCandidates
    from emtta_core.model.candidates import Strategy
    from emtta_core.model.speech_model import Model

Kind = Literal["candidates", "objective", "parameters", "decision", "adapter", "method"]
"""What a plug-in can be: one of four parts, a whole method with a loop of its own, or a method composed of parts."""


class PluginError(EmttaError):
    """A plug-in failed, or gave what it must not; the cause is the exception that it raised."""


class LossFunction(Protocol):
    """An objective. An attribute `sharpness`, a radius, makes its updates sharpness-aware (arXiv:2010.01412)."""

    def __call__(self, candidates: ScoredCandidates) -> Tensor | Loss:
        """The loss of each utterance, `(B,)`, with a gradient; or a `Loss`, whose parts the trace then shows."""


@dataclass(frozen=True, slots=True)
class CandidateRequest:
    """What a source of candidates is asked for."""

    ids: Sequence[str]  # of the B utterances
    step: int  # how many updates were made; -1 for what a decision chooses among
    keys: Tensor  # `(B,)`, whole numbers of 64 bits: the seed of each utterance's random numbers
    options: Options  # `options.candidates` is how many sequences each utterance should have
    model: Model  # with its vocabulary and its end token


class CandidateSource(Protocol):
    """A source of candidates: of an update, or of what a decision chooses among."""

    def __call__(self, request: CandidateRequest) -> Strategy:
        """A new strategy of the token loop; most are a subclass of `emtta_core.model.candidates.Rows`."""


class ParameterSelection(Protocol):
    """A selection of the parameters that are adapted."""

    def __call__(self, names: Sequence[str]) -> Sequence[str]:
        """Those wanted of the model's LayerNorm weights and biases, as `decoder.layers.0.final_layer_norm.bias`."""


class DecisionRule(Protocol):
    """What chooses the hypothesis in the end."""

    @property
    def candidates(self) -> str:
        """Where it chooses among: "sample", "beam", or a source of candidates."""

    def __call__(self, texts: Sequence[str]) -> int:
        """The index of the hypothesis among an utterance's texts; beams come best first."""


@dataclass(frozen=True, slots=True)
class Utterances:
    """B utterances for a method with a loop of its own."""

    ids: Sequence[str]
    waveforms: Sequence[NDArray[np.float32]]  # mono samples at the model's rate, full scale 1.0
    languages: Sequence[str]  # codes that the model knows


class MethodAdapter(Protocol):
    """A whole method that is no composition; it is made once for a cell, as `factory(model, options)`."""

    def adapt(self, batch: Utterances) -> Sequence[AdaptationResult]:
        """One result an utterance, in order. What it keeps between batches makes results depend on their order."""


@cache
def load(kind: Kind, path: str) -> Any:
    """Import a part, and check that it is of its kind.

    Raises:
        UsageError: it cannot be imported, or is no such part; says what to do.
    """
    found = import_plugin(kind, path)
    lacking = _lacking(kind, found)
    if lacking:
        raise UsageError(f"{kind} {path!r} is {_described(found)}; {lacking} (docs/extending.md)")
    return found


def _lacking(kind: Kind, found: Any) -> str | None:
    # What keeps an object from being a part of a kind, and what to do.
    if kind == "method":
        return None
    if kind in ("objective", "parameters", "decision") and inspect.isclass(found):
        return f"give an instance of it, as {found.__name__.upper()} = {found.__name__}()"
    if not callable(found):
        return {
            "objective": "an objective is called with the scored candidates, and returns the loss of each utterance",
            "candidates": "a source of candidates is called with a request, and returns a strategy",
            "parameters": "a selection is called with the names of parameters, and returns those wanted",
            "decision": "a decision is called with texts, and returns the index of one",
            "adapter": "an adapter is made by calling it with a model and options",
        }[kind]
    if kind == "decision" and not isinstance(getattr(found, "candidates", None), str):
        return 'a decision has an attribute `candidates`, as candidates = "sample"'
    if kind == "adapter" and inspect.isclass(found) and not callable(getattr(found, "adapt", None)):
        return "an adapter has a method `adapt(batch)`, which returns a result for each utterance"
    return None


def _described(found: Any) -> str:
    return f"the class {found.__name__}" if inspect.isclass(found) else f"an object of the class {type(found).__name__}"


@contextmanager
def calling(kind: Kind, name: str) -> Iterator[None]:
    """Turn what a plug-in raises inside the `with` block into a `PluginError`, unless memory did not suffice."""
    try:
        yield
    except Exception as error:
        if not is_plugin(name) or isinstance(error, EmttaError) or is_out_of_memory(error):
            raise
        raise PluginError(
            f"{kind} {name!r} failed: {type(error).__name__}: {in_words(error)}; the attempt's log has the traceback"
        ) from error


def adapt_whole(adapter: MethodAdapter, name: str, batch: Utterances) -> list[AdaptationResult]:
    """Have an adapter adapt to a batch.

    Raises:
        PluginError: it failed, or what it gave is not one result an utterance, in order.
    """
    with calling("adapter", name):
        given = adapter.adapt(batch)
    found = list(given) if isinstance(given, Sequence) else [given]
    strange = [type(one).__name__ for one in found if type(one).__name__ != "AdaptationResult"]
    if strange:
        raise refuse_result("adapter", name, f"a {strange[0]}", "a list with an AdaptationResult for each utterance")
    ids = [one.utterance_id for one in found]
    if ids != list(batch.ids):
        raise refuse_result("adapter", name, f"results of {ids}", f"one of each of {list(batch.ids)}, in that order")
    return found


def refuse_result(kind: Kind, name: str, given: str, wanted: str) -> PluginError:
    """The error on what a plug-in returned, which is `given` in words, and should be `wanted`."""
    return PluginError(f"{kind} {name!r} gave {given}; it must give {wanted} (docs/extending.md)")
