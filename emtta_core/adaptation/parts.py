"""Plug-ins: the parts of a method that other packages bring, as `package.module:object`.

Each kind of part has a protocol. A plug-in's path, the release of its package and a digest of the package's source are
part of the identity of its results. Nothing here needs torch; docs/extending.md shows how a part is written.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from emtta_core.errors import EmttaError, UsageError, in_words
from emtta_core.faults import is_out_of_memory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from emtta_core.adaptation.objective import Loss
    from emtta_core.adaptation.options import Options
    from emtta_core.adaptation.results import AdaptationResult
    from emtta_core.adaptation.scored import ScoredCandidates
    from emtta_core.model.candidates import Strategy
    from emtta_core.model.speech_model import SpeechModel

Kind = Literal["candidates", "objective", "parameters", "decision", "adapter", "method"]
"""What a plug-in can be: one of four parts, a whole method with a loop of its own, or a method composed of parts."""

PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
"""How a plug-in is named."""


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
    model: SpeechModel  # with its vocabulary and its end token


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


def is_plugin(name: object) -> bool:
    """Whether a part is named as `package.module:object`."""
    return isinstance(name, str) and ":" in name


@cache
def load(kind: Kind, path: str) -> Any:
    """Import a part, and check that it is of its kind.

    Raises:
        UsageError: it cannot be imported, or is no such part; says what to do.
    """
    module, _, attribute = path.partition(":")
    if module.partition(".")[0] != __package__.partition(".")[0]:
        _sources.setdefault(path, fingerprint(path)["source"])
    try:
        found = getattr(importlib.import_module(module), attribute)
    except AttributeError as error:
        raise UsageError(f"{kind} {path!r}: {in_words(error)}; name an object that the module has") from error
    except Exception as error:
        raise UsageError(
            f"{kind} {path!r} cannot be imported: {type(error).__name__}: {in_words(error)}; mend its module, or "
            "install what it needs"
        ) from error
    lacking = _lacking(kind, found)
    if lacking:
        raise UsageError(f"{kind} {path!r} is {_described(found)}; {lacking} (docs/extending.md)")
    return found


_sources: dict[str, str] = {}
"""Of each plug-in that this process has imported, the digest of its source then."""


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


def fingerprint(path: str) -> dict[str, str]:
    """What tells a plug-in from others, and from itself after a change: its path, release and source.

    Nothing of it is imported.

    Raises:
        UsageError: there is no such module.
    """
    module = path.partition(":")[0]
    top = _spec(module, path)
    folders = [Path(folder) for folder in top.submodule_search_locations or ()]
    files = [(file.relative_to(folder).as_posix(), file) for folder in folders for file in folder.rglob("*.py")]
    if not folders and top.origin is not None:
        files = [(Path(top.origin).name, Path(top.origin))]
    source = hashlib.sha256()
    for name, file in sorted(files):
        source.update(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\0".encode())
    return {"plugin": path, "version": _release(module.partition(".")[0]), "source": source.hexdigest()[:16]}


def _spec(module: str, path: str) -> ModuleSpec:
    # The top package of a module, which must be there; found without running any of it.
    found: list[ModuleSpec] = []
    for part in module.split("."):
        inside = found[-1].submodule_search_locations if found else None
        name = f"{found[-1].name}.{part}" if found else part
        try:
            spec = PathFinder.find_spec(name, inside) if found else find_spec(part)
        except (ImportError, ValueError):
            spec = None
        if spec is None or (found and inside is None):
            raise UsageError(
                f"there is no module {name!r} for {path!r}; give package.module:object, and install the package or put "
                "its folder on PYTHONPATH"
            )
        found.append(spec)
    return found[0]


def _release(package: str) -> str:
    try:
        return version(packages_distributions().get(package, [package])[0])
    except PackageNotFoundError:  # a file on PYTHONPATH
        return ""


def check_sources(planned: Mapping[str, str]) -> None:
    """Check that plug-ins are here what they were when a cell was planned.

    Args:
        planned: of each plug-in, the digest of its source.

    Raises:
        UsageError: one is another here, or has changed since this process imported it.
    """
    for path, source in planned.items():
        here = fingerprint(path)["source"]
        if here != source:
            raise UsageError(
                f"the source of the plug-in {path!r} is {here} here, and the cell was planned with {source}; run the "
                "suite again to plan it with the present one, and let each machine have the same"
            )
        if _sources.get(path, here) != here:
            raise UsageError(f"the plug-in {path!r} has changed since this process imported it; start the process anew")


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
