"""Plug-ins run like the engine's own parts, and each mistake in one is named."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import Command, Speech, SuiteFile
from whisper_factory import sounds

from emtta_core import plugins
from emtta_core.adaptation import Adapter, Method, Objective, PluginError, ScoredCandidates, method
from emtta_core.adaptation.episode import prepare_batch, run
from emtta_core.adaptation.options import Options
from emtta_core.adaptation.parameters import parameter_names, split
from emtta_core.adaptation.plugin_check import check_method
from emtta_core.errors import UsageError
from emtta_core.model import SpeechModel, load_model
from emtta_core.pipeline.plan import plan
from emtta_core.store import Catalogue, Store
from emtta_core.suite import parse_suite

PARTS = """
from dataclasses import replace

import torch

from emtta_core.adaptation import AdaptationResult, em_loss
from emtta_core.model.candidates import Sampled


def own(candidates):
    return em_loss(candidates.logits, candidates.tokens, candidates.mask).total

def plain(candidates):
    probs = candidates.logits.softmax(-1)
    entropies = -(probs * candidates.logits.log_softmax(-1)).sum(-1) * candidates.mask
    return entropies.sum((1, 2)) / candidates.mask.sum((1, 2))

def each(candidates):
    entropy = candidates.each(lambda logits: -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1))
    return entropy.sum((1, 2)) / candidates.mask.sum((1, 2))

def mixing(candidates):
    entropies = candidates.entropies.sum((1, 2))
    return entropies * entropies.mean()

def random(candidates):
    return candidates.entropies.sum((1, 2)) * torch.rand(len(candidates.ids))

def detached(candidates):
    return candidates.entropies.detach().sum((1, 2))

def scalar(candidates):
    return candidates.entropies.sum()

def infinite(candidates):
    probs = candidates.logits.softmax(-1)
    return -(probs * probs.log()).sum((1, 2, 3))

def failing(candidates):
    raise ValueError("no such frame")

def flat(candidates):
    return 0 * candidates.entropies.sum((1, 2))

class Sharp:
    sharpness = "much"

    def __call__(self, candidates):
        return candidates.entropies.sum((1, 2))

SHARP = Sharp()

class Warm(Sampled):
    def advance(self, step, frontier):
        return super().advance(step, replace(frontier, masked=frontier.masked / 0.7))

def warm(request):
    return Warm(request.keys, request.options.candidates)

def shared(request):
    return Warm(torch.zeros_like(request.keys) + len(request.ids), request.options.candidates)

def number(request):
    return 3

def biases(names):
    return [name for name in names if name.startswith("decoder") and name.endswith("bias")]

def foreign(names):
    return ["decoder.embed_tokens.weight"]

class Longest:
    candidates = "sample"

    def __call__(self, texts):
        return max(range(len(texts)), key=lambda index: len(texts[index]))

class Beyond(Longest):
    def __call__(self, texts):
        return len(texts)

LONGEST, BEYOND = Longest(), Beyond()

class Own:
    def __init__(self, model, options):
        self.options = options

    def adapt(self, batch):
        texts = [f"{len(waveform)} {language}" for waveform, language in zip(batch.waveforms, batch.languages)]
        return [AdaptationResult(name, text, "", 1.0, 0.5, (), 0.0) for name, text in zip(batch.ids, texts)]

class Counting(Own):
    def adapt(self, batch):
        return [replace(result, hypothesis=str(len(batch.ids))) for result in super().adapt(batch)]

class Short(Own):
    def adapt(self, batch):
        return super().adapt(batch)[1:]

text = "a text"
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An importable folder with the plug-ins above."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "their_parts.py").write_text(PARTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", str(folder), prepend=":")
        yield folder


@pytest.fixture(scope="module")
def model(tiny_model: Path, site: Path) -> SpeechModel:
    return load_model(tiny_model, device="cpu", precision="float64")


def named(**named_parts: str) -> Method:
    """Return em-tok-b with some parts replaced by plug-ins of the module above."""
    paths = {kind: f"their_parts:{name}" for kind, name in named_parts.items()}
    candidates = paths.pop("candidates", "none" if "adapter" in paths or "decision" in paths else "beam")
    return Method("mine", candidates, **paths)


@pytest.mark.parametrize(
    "parts_of",
    [
        *({"objective": name} for name in ("own", "plain", "each")),
        *({"candidates": "warm"}, {"parameters": "biases"}, {"decision": "LONGEST"}, {"adapter": "Own"}),
    ],
    ids=lambda chosen: next(iter(chosen.values())),
)
def test_valid_part_passes_check(model: SpeechModel, parts_of: dict[str, str]) -> None:
    assert check_method(model, named(**parts_of)) == []


FAULTS = {
    "mixing": ({"objective": "mixing"}, r"objective: loss of utterance-0 at step 0 .* in a batch: it mixes"),
    "not deterministic": ({"objective": "random"}, "objective: loss of utterance-0 .* when repeated"),
    "no gradient": (
        {"objective": "detached"},
        r"'their_parts:detached' returned a loss without a gradient.*detach\(\)",
    ),
    "wrong shape": ({"objective": "scalar"}, r"of shape \(\); it must return a tensor of shape \(3,\)"),
    "NaN": ({"objective": "infinite"}, "returned the loss nan .* at step 0; make sure that no logarithm"),
    "exception": ({"objective": "failing"}, "failed: ValueError: no such frame; the attempt's log"),
    "zero": ({"objective": "flat"}, "its gradient is zero at every step"),
    "no radius": ({"objective": "SHARP"}, "returned sharpness = 'much'; it must return a finite number of at least 0"),
    "a class": ({"objective": "Sharp"}, r"is the class Sharp; name an instance of it, such as SHARP = Sharp\(\)"),
    "no function": ({"objective": "text"}, "object of the class str; an objective is called with the scored"),
    "no such object": ({"objective": "absent"}, "no attribute 'absent'; name an existing object of the module"),
    "shared candidates": ({"candidates": "shared"}, "candidates: candidate_.* in a batch: it mixes utterances"),
    "no strategy": ({"candidates": "number"}, "of the class int; .* it lacks rows, begin, advance"),
    "foreign parameter": ({"parameters": "foreign"}, r"'decoder\.embed_tokens\.weight'; .* as 'encoder\.layers\.0"),
    "no choice": ({"decision": "BEYOND"}, "returned 4; it must return a whole number from 0 to 3"),
    "a decision without a source": ({"decision": "own"}, "has an attribute `candidates`"),
    "results that lack one": (
        {"adapter": "Short"},
        r"returned results of \['utterance-.* it must return one for each of",
    ),
    "an adapter that mixes": ({"adapter": "Counting"}, "adapter: the hypothesis of utterance-0 is '1', but '3' in"),
    "an adapter that is none": ({"adapter": "Sharp"}, r"has a method `adapt\(batch\)`"),
}


@pytest.mark.parametrize(("parts_of", "words"), FAULTS.values(), ids=FAULTS)
def test_faulty_part_is_named(model: SpeechModel, parts_of: dict[str, str], words: str) -> None:
    (fault,) = check_method(model, named(**parts_of))
    assert re.search(words, fault)


def test_own_objective_equals_engines(model: SpeechModel) -> None:
    batch = prepare_batch(model, sounds([1.0, 2.4]), ["en", "de"], ["a", "b"])
    made = [run(model, chosen, Options(2, 3), batch)[1] for chosen in (method("em-tok-b"), named(objective="own"))]
    torch.testing.assert_close(*made, rtol=1e-9, atol=1e-9)


def test_function_can_be_objective(model: SpeechModel) -> None:
    def loss(candidates: ScoredCandidates) -> torch.Tensor:
        return candidates.entropies.sum((1, 2)) / candidates.mask.sum((1, 2))

    batch = prepare_batch(model, sounds([1.0, 2.4]), ["en", "de"], ["a", "b"])
    objectives = (loss, Objective(policy=False))
    made = [run(model, Method("mine", "beam", chosen), Options(2, 3), batch)[1] for chosen in objectives]
    torch.testing.assert_close(*made, rtol=1e-9, atol=1e-9)


def test_selected_parameters_adapt(model: SpeechModel) -> None:
    batch = prepare_batch(model, sounds([1.0]), ["en"], ["a"])
    chosen, source = named(parameters="biases"), model.weights.norms.clone()
    _, after = run(model, chosen, Options(2, 3, 1e-2), batch)
    names = parameter_names(model.weights)
    selected = torch.tensor([name.startswith("decoder") and name.endswith("bias") for name in names])
    assert after.shape == (1, int(selected.sum()) * model.weights.width)
    assert torch.equal(model.weights.norms, source), "the model's own parameters are unchanged"
    norms = split(model.weights, after, chosen.parameters)
    adapted, before = torch.cat(norms, 1).view(len(names), -1), source.view(len(names), -1)
    assert (adapted - before)[selected].abs().amin() > 0
    assert torch.equal(adapted[~selected], before[~selected])


def test_missing_module_is_refused() -> None:
    suite = 'name = "s"\nmethods = [{ name = "mine", objective = "no_such.module:LOSS" }]\nmodel = { name = "demo" }\n'
    suite += '[[domains]]\nname = "d"\ngroup = "g"\ncorpus = { name = "synthetic", utterances = 1 }\n'
    with pytest.raises(UsageError, match=r"there is no module 'no_such' for 'no_such\.module:LOSS'.*PYTHONPATH"):
        plan(parse_suite(suite), "0" * 16)
    with pytest.raises(UsageError, match=r"'sgem', 'suta'.*or a plug-in such as 'package.module:object'"):
        parse_suite(suite.replace("no_such.module:LOSS", "entropy"))


def test_source_is_part_of_identity(site: Path, model: SpeechModel) -> None:
    package = site / "their_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "loss.py").write_text("def loss(candidates):\n    return candidates.entropies.sum((1, 2))\n")
    chosen = Method("mine", "beam", "their_package.loss:loss")
    before = chosen.identity()
    planned = {path: plugins.fingerprint(path)["source"] for path in chosen.plugins.values()}
    plugins.check_sources(planned)
    Adapter(model, chosen)
    (package / "helper.py").write_text("NUMBER = 1\n")
    assert chosen.identity() != before
    with pytest.raises(UsageError, match=r"here, but the cell was planned with .* run the suite again"):
        plugins.check_sources(planned)
    with pytest.raises(UsageError, match="has changed since this process imported it"):
        plugins.check_sources({path: plugins.fingerprint(path)["source"] for path in chosen.plugins.values()})


def test_installed_package_adds_methods(site: Path, model: SpeechModel) -> None:
    about = site / "their_methods-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-methods\nVersion: 1.0\n")
    points = "calm = their_methods:CALM\nown-loop = their_parts:Own\nno-method = their_parts:text\n"
    (about / "entry_points.txt").write_text(f"[emtta.methods]\n{points}")
    (site / "their_methods.py").write_text(
        "from emtta_core.adaptation import Method\nCALM = Method('x', 'their_parts:warm', 'their_parts:plain')\n"
    )
    calm = method("calm")
    assert (calm.name, calm.candidates) == ("calm", "their_parts:warm")
    assert "seed" in calm.options
    (result,) = Adapter(model, method("own-loop")).transcribe(sounds([0.5]), language="de")
    assert result.hypothesis == "8000 de"
    assert result.seconds > 0
    with pytest.raises(UsageError, match=r"'no-method' of emtta\.methods is 'their_parts:text', a str"):
        method("no-method")
    with pytest.raises(UsageError, match=r"unknown method 'calmer' .*calm, "):
        method("calmer")


def test_low_memory_halves_batch(model: SpeechModel, site: Path) -> None:
    (site / "their_memory.py").write_text(
        "def loss(candidates):\n    if len(candidates.ids) > 1:\n        raise MemoryError\n"
        "    return candidates.entropies.sum((1, 2))\n"
    )
    adapter = Adapter(model, Method("mine", "beam", "their_memory:loss"), batch_size=2, steps=1, candidates=2)
    assert [result.error for result in adapter.transcribe(sounds([0.5, 0.7]))] == [None, None]
    assert adapter.batch_size == 1


def test_failure_keeps_its_cause(model: SpeechModel) -> None:
    with pytest.raises(PluginError) as failure:
        Adapter(model, named(objective="failing")).transcribe(sounds([0.5]))
    assert isinstance(failure.value.__cause__, ValueError)


def test_doctor_names_faulty_part(
    site: Path, suite_file: SuiteFile, speech: Speech, tmp_path: Path, emtta: Command
) -> None:
    path = suite_file(methods=("source",))
    faulty = 'methods = ["source", { name = "mine", base = "em-tok-b", objective = "their_parts:mixing" }]'
    path.write_text(path.read_text().replace("methods = ['source']", faulty))
    looked = emtta("doctor", path, "--store", tmp_path / "store", "--format", "json")
    assert looked.code == 1
    (found,) = [check for check in json.loads(looked.out)["checks"] if check["what"].startswith("method ")]
    assert (found["what"], found["ok"]) == ("method mine", False)
    assert "it mixes utterances" in found["found"]


@pytest.mark.parametrize("isolation", ["none", pytest.param("process", marks=pytest.mark.slow)])
def test_exception_fails_own_cells_only(
    site: Path,
    suite_file: SuiteFile,
    speech: Speech,
    tmp_path: Path,
    emtta: Command,
    prefect_server: str,
    isolation: str,
) -> None:
    (site / "their_edited.py").write_text("from their_parts import plain\n")
    path, store = suite_file(methods=("source",)), tmp_path / "store"
    composed = (
        'methods = ["source", { name = "sound", objective = "their_edited:plain" }, '
        '{ name = "broken", objective = "their_parts:failing" }, { name = "whole", adapter = "their_parts:Own" }]'
    )
    text = path.read_text().replace("isolation", "workers = 1, isolation")  # each worker takes seconds to start
    path.write_text(text.replace("methods = ['source']", composed))
    done = emtta("run", path, "--store", store, "--isolation", isolation)
    assert done.code == 3, done.err
    opened = Store.open(store)
    with Catalogue(opened) as catalogue:
        states = dict(catalogue.query("SELECT method, state FROM cells").rows)
        errors = catalogue.query("SELECT error FROM attempts WHERE method = 'broken'").rows
        losses = catalogue.query("SELECT count(loss), count(policy_loss) FROM steps WHERE method = 'sound'").rows
    assert states == {"source": "complete", "sound": "complete", "broken": "failed", "whole": "complete"}
    failure = "objective 'their_parts:failing' failed: ValueError: no such frame; the attempt's log has the traceback"
    assert errors == [(failure,)]
    assert losses == [(3, 0)]
    (log,) = Path(store, "logs").rglob("method=broken/**/*.log")
    assert 'their_parts.py", line' in log.read_text()

    (site / "their_edited.py").write_text("from their_parts import each as plain\n")  # changed source, so new cells
    (run_id,) = opened.runs()
    refused = emtta("rerun", run_id, "--store", store)
    assert refused.code == 2
    assert "the plug-in of the method sound" in refused.err
    planned = emtta("run", path, "--store", store, "--dry-run")
    assert "sound, broken" in planned.out
    assert "would do 2 of 4 cells" in planned.err
