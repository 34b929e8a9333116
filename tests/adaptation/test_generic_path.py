"""The generic path is the reference for the fast path: both give the same hypotheses and numbers."""

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from generic_factory import make_moonshine
from whisper_factory import make_checkpoint, sounds

from emtta_core.adaptation import METHODS, Adapter, Method
from emtta_core.errors import UsageError
from emtta_core.model import Model, SpeechModel, TransformersModel, load_model

IDS = ("a", "b")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="module")
def pair(folder: Path) -> tuple[Model, Model]:
    return pair_of(folder)


@pytest.fixture(scope="module")
def moonshines(tmp_path_factory: pytest.TempPathFactory) -> tuple[Model, Model]:
    return pair_of(make_moonshine(tmp_path_factory.mktemp("moonshine")), precision="float64")


def pair_of(folder: Path, **options: str) -> tuple[Model, Model]:
    fast = load_model(folder, device="cpu", **options)
    generic = load_model(folder, device="cpu", family="transformers", **options)
    assert isinstance(fast, SpeechModel)
    assert isinstance(generic, TransformersModel)
    return fast, generic


RELATED = (
    *("em-tok-policy", "em-tok-entropy", "em-tok-b+mbr", "em-tok-b+beam"),
    *("vote-reward", "risk-reward", "sar", "cea", "pseudo-label"),
)
"""Methods whose parts other methods also use."""


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=pytest.mark.slow) if name in RELATED else name for name in METHODS]
)
def test_generic_path_matches_fast(pair: tuple[Model, Model], method: str) -> None:
    assert_same(pair, METHODS[method], {"steps": 2, "candidates": 3, "beams": 3, "learning_rate": 3e-3})


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        *((name, "layernorm") for name in ("source", "source-beam", "em-tok-b")),
        *(pytest.param(name, "layernorm", marks=pytest.mark.slow) for name in ("greedy-em", "em-seq", "em-tok")),
        pytest.param("em-tok-b", "decoder-layernorm", marks=pytest.mark.slow),
        ("em-tok", "encoder-layernorm"),
    ],
)
def test_moonshine_paths_match(moonshines: tuple[Model, Model], method: str, parameters: str) -> None:
    chosen = replace(METHODS[method], parameters=parameters)
    assert_same(moonshines, chosen, {"steps": 2, "candidates": 3, "beams": 3, "learning_rate": 3e-3})


def assert_same(pair: tuple[Model, Model], method: Method, options: dict[str, Any]) -> None:
    fast, generic = (
        Adapter(model, method, **options).transcribe(sounds([0.8, 1.7]), utterance_ids=IDS) for model in pair
    )
    for one, other in zip(fast, generic, strict=True):
        assert other.error is None
        assert (one.hypothesis, one.source_hypothesis) == (other.hypothesis, other.source_hypothesis)
        assert (one.flags, one.tokens) == (other.flags, other.tokens)
        assert len(one.trace) == len(other.trace)
        for left, right in zip(one.trace, other.trace, strict=True):
            for (name, value), found in zip(asdict(left).items(), asdict(right).values(), strict=True):
                if isinstance(value, float):
                    assert math.isclose(value, found, rel_tol=2e-4, abs_tol=2e-5), (name, value, found)
                else:
                    assert value == found, name


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (METHODS["em-tok-b"], {"parameters": "decoder-layernorm"}),
        pytest.param(METHODS["em-tok"], {"parameters": "encoder-layernorm"}, marks=pytest.mark.slow),
        (METHODS["em-tok-b"], {"redraw": False, "early_stop": 0.01, "steps": 4}),
        pytest.param(METHODS["em-tok-b+beam"], {"revert": True, "learning_rate": 0.3}, marks=pytest.mark.slow),
        (METHODS["greedy-em"], {"adapt_above": 2.03, "trace": "metrics"}),
    ],
    ids=["decoder", "encoder", "early-stop", "revert", "gate"],
)
def test_options_match_fast(pair: tuple[Model, Model], method: Method, options: dict[str, Any]) -> None:
    chosen = replace(method, parameters=options.pop("parameters", "layernorm"))
    assert_same(pair, chosen, {"steps": 2, "candidates": 3, "beams": 3, "learning_rate": 3e-3, **options})


PARTS = """
from dataclasses import replace

from emtta_core.model.beam_search import BeamSearch
from emtta_core.model.candidates import Sampled


class Warm(Sampled):
    def advance(self, step, frontier):
        return super().advance(step, replace(frontier, masked=frontier.masked / 0.7))


def warm(request):
    return Warm(request.keys, request.options.candidates)


def search(request):
    return BeamSearch(request.options.candidates)


def margin(candidates):
    return candidates.logits.softmax(-1).amax(-1).masked_fill(~candidates.mask, 0.0).sum((1, 2))


def last(names):
    return [name for name in names if name.startswith("decoder.layer_norm")]


class Longest:
    candidates = "sample"

    def __call__(self, texts):
        return max(range(len(texts)), key=lambda index: len(texts[index]))


LONGEST = Longest()
"""


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module of plug-ins."""
    (tmp_path / "generic_parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(tmp_path)
    return "generic_parts"


def test_plugins_match_fast(pair: tuple[Model, Model], parts: str) -> None:
    own = {"candidates": "warm", "objective": "margin", "parameters": "last", "decision": "LONGEST"}
    method = Method("own", **{kind: f"{parts}:{name}" for kind, name in own.items()})
    assert_same(pair, method, {"steps": 2, "candidates": 3})


def test_prefix_sharing_rows_are_refused(pair: tuple[Model, Model], parts: str) -> None:
    adapter = Adapter(pair[1], Method("own", f"{parts}:search"), steps=1, candidates=2)
    with pytest.raises(UsageError, match=r"candidates of BeamSearch continue each other.*use 'beam'"):
        adapter.transcribe(sounds([0.8]))


def test_divergence_is_reported_and_undone(pair: tuple[Model, Model]) -> None:
    before, diverged, after = (
        Adapter(pair[1], method, steps=2, candidates=2, learning_rate=1e30).transcribe(sounds([0.8]))[0]
        for method in ("source", "em-tok", "source")
    )
    assert "diverged: at step 1" in str(diverged.error)
    assert after.entropy_after == before.entropy_after
    assert (after.hypothesis, after.error) == (before.hypothesis, None)


def test_streams_are_refused(pair: tuple[Model, Model]) -> None:
    with pytest.raises(UsageError, match=r"streams are not supported; .*reset = \"utterance\""):
        Adapter(pair[1], "greedy-em").carry(sounds([0.8]), "en", ["a"], [None])
