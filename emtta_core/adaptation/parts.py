"""Plug-ins: parts of a method from other packages, given as `package.module:object`.

Each kind of part has a protocol; `emtta_core.plugins` finds plug-ins and identifies their versions. This module does
not need torch; docs/extending.md shows how to write a part.
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
"""What a plug-in can be: one of four parts, a whole method with its own loop, or a method composed of parts."""


class PluginError(EmttaError):
    """A plug-in failed or returned an invalid result; the cause is the exception that it raised, if any."""


class LossFunction(Protocol):
    """An objective. An attribute `sharpness`, a radius, makes its updates sharpness-aware (arXiv:2010.01412)."""

    def __call__(self, candidates: ScoredCandidates) -> Tensor | Loss:
        """The loss of each utterance, `(B,)`, with a gradient; or a `Loss`, whose parts then appear in the trace."""


@dataclass(frozen=True, slots=True)
class CandidateRequest:
    """A request to a source of candidates."""

    ids: Sequence[str]  # of the B utterances
    step: int  # the number of updates made; -1 for the sequences that a decision chooses among
    keys: Tensor  # `(B,)`, 64-bit integers: the seed of each utterance's random numbers
    options: Options  # `options.candidates` is how many sequences each utterance should have
    model: Model  # with its vocabulary and its end token


class CandidateSource(Protocol):
    """A source of candidates, for an update or for a decision."""

    def __call__(self, request: CandidateRequest) -> Strategy:
        """A new strategy of the token loop, usually a subclass of `emtta_core.model.candidates.Rows`."""


class ParameterSelection(Protocol):
    """A selection of the parameters to adapt."""

    def __call__(self, names: Sequence[str]) -> Sequence[str]:
        """Select from the names of LayerNorm weights and biases, such as `decoder.layers.0.final_layer_norm.bias`."""


class DecisionRule(Protocol):
    """The choice of the final hypothesis."""

    @property
    def candidates(self) -> str:
        """The source of the sequences it chooses among: "sample", "beam", or a plug-in."""

    def __call__(self, texts: Sequence[str]) -> int:
        """The index of the hypothesis among an utterance's texts; beams come best first."""


@dataclass(frozen=True, slots=True)
class Utterances:
    """B utterances for a method with its own loop."""

    ids: Sequence[str]
    waveforms: Sequence[NDArray[np.float32]]  # mono samples at the model's rate, full scale 1.0
    languages: Sequence[str]  # language codes that the model knows


class MethodAdapter(Protocol):
    """A whole method that is not composed of parts; it is created once per cell, as `factory(model, options)`."""

    def adapt(self, batch: Utterances) -> Sequence[AdaptationResult]:
        """One result per utterance, in order. State kept between batches makes results depend on their order."""


@cache
def load(kind: Kind, path: str) -> Any:
    """Import a part, and check that it is of the given kind.

    Raises:
        UsageError: it cannot be imported, or is not such a part; says what to do.
    """
    found = import_plugin(kind, path)
    problem = _problem_with(kind, found)
    if problem:
        raise UsageError(f"{kind} {path!r} is {_described(found)}; {problem} (docs/extending.md)")
    return found


def _problem_with(kind: Kind, found: Any) -> str | None:
    # Why an object is not a part of a kind, and what to do.
    if kind == "method":
        return None
    if kind in ("objective", "parameters", "decision") and inspect.isclass(found):
        return f"name an instance of it, such as {found.__name__.upper()} = {found.__name__}()"
    if not callable(found):
        return {
            "objective": "an objective is called with the scored candidates and returns the loss of each utterance",
            "candidates": "a source of candidates is called with a request and returns a strategy",
            "parameters": "a selection is called with the names of parameters and returns those to adapt",
            "decision": "a decision is called with texts and returns the index of one",
            "adapter": "an adapter is created by calling its factory with a model and options",
        }[kind]
    if kind == "decision" and not isinstance(getattr(found, "candidates", None), str):
        return 'a decision has an attribute `candidates`, such as candidates = "sample"'
    if kind == "adapter" and inspect.isclass(found) and not callable(getattr(found, "adapt", None)):
        return "an adapter has a method `adapt(batch)`, which returns a result for each utterance"
    return None


def _described(found: Any) -> str:
    return f"the class {found.__name__}" if inspect.isclass(found) else f"an object of the class {type(found).__name__}"


@contextmanager
def calling(kind: Kind, name: str) -> Iterator[None]:
    """Turn what a plug-in raises inside the `with` block into a `PluginError`, except for running out of memory."""
    try:
        yield
    except Exception as error:
        if not is_plugin(name) or isinstance(error, EmttaError) or is_out_of_memory(error):
            raise
        raise PluginError(
            f"{kind} {name!r} failed: {type(error).__name__}: {in_words(error)}; the attempt's log has the traceback"
        ) from error


def call_adapter(adapter: MethodAdapter, name: str, batch: Utterances) -> list[AdaptationResult]:
    """Call an adapter on a batch.

    Raises:
        PluginError: it failed, or did not return one result per utterance, in order.
    """
    with calling("adapter", name):
        returned = adapter.adapt(batch)
    results = list(returned) if isinstance(returned, Sequence) else [returned]
    wrong = [type(one).__name__ for one in results if type(one).__name__ != "AdaptationResult"]
    if wrong:
        raise refuse_result("adapter", name, f"a {wrong[0]}", "a list with an AdaptationResult for each utterance")
    ids = [one.utterance_id for one in results]
    if ids != list(batch.ids):
        raise refuse_result("adapter", name, f"results of {ids}", f"one for each of {list(batch.ids)}, in that order")
    return results


def refuse_result(kind: Kind, name: str, returned: str, expected: str) -> PluginError:
    """The error for a plug-in's result: it `returned` something else than was `expected`."""
    return PluginError(f"{kind} {name!r} returned {returned}; it must return {expected} (docs/extending.md)")
