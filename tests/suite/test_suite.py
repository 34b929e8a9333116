"""A suite file defines one evaluation: shared values are filled in, and a suite written to a file reads back equal."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import CLEAN, SuiteFile
from hypothesis import given
from hypothesis import strategies as st

from emtta_core.audio.noise_file import MS_SNSD, NoiseFile
from emtta_core.corpora.folder import Folder
from emtta_core.corpora.synthetic import Synthetic
from emtta_core.errors import UsageError
from emtta_core.suite import Suite, load_suite, parse_suite
from emtta_core.suite.file import suite_names

LAYERS = """\
name = "layers"
methods = ["source"]
model = { name = "demo" }
[defaults]
corpus = { name = "synthetic", utterances = 7, rate = 150 }
[groups.noise]
corpus = { language = "en", voices = ["en-us+m1"] }
corruption = { name = "noise", snr_db = 5 }
[[domains]]
name = "BA"
group = "noise"
corruption = { kind = "babble" }
[[domains]]
name = "loud"
group = "noise"
corpus = { rate = 160 }
corruption = { kind = "typing", snr_db = -5 }
[[domains]]
name = "mine"
group = "own"
corpus = { name = "folder", path = "speech" }
"""


def test_demo_has_paper_domains() -> None:
    suite = load_suite("demo")
    sizes = {group: sum(domain.group == group for domain in suite.domains) for group in suite.groups}
    assert sizes == {"noise": 10, "accent": 6, "language": 7}
    names = [choice.name for choice in suite.methods]
    assert names == ["source", "source-beam", "greedy-em", "em-seq", "em-tok", "em-tok-b", "em-tok-b+beam"]
    assert suite.seeds == (0, 1, 2)


def test_smoke_has_three_domains() -> None:
    suite = load_suite("smoke")
    assert (len(suite.domains), len(suite.methods), len(suite.groups)) == (3, 2, 3)


def test_shipped_suites_have_descriptions() -> None:
    for name in suite_names():
        suite = load_suite(name)
        assert suite.name == name
        assert suite.description


def test_paper_matches_publication() -> None:
    suite = load_suite("paper")
    groups = {group: sum(domain.group == group for domain in suite.domains) for group in suite.groups}
    assert groups == {"noise": 10, "accent": 6, "language": 7}
    assert suite.model.name == "openai/whisper-base"
    assert [method.name for method in suite.methods] == ["source", "greedy-em", "em-seq", "em-tok", "em-tok-b"]
    adaptation = suite.adaptation
    assert (adaptation.steps, adaptation.candidates, adaptation.learning_rate) == (10, 16, 1e-3)
    noise = [domain for domain in suite.domains if domain.group == "noise"]
    recordings = [domain.corruption for domain in noise if isinstance(domain.corruption, NoiseFile)]
    assert {recording.kind for recording in recordings} == {"gaussian", *MS_SNSD}
    assert {(one.snr_db, one.offset, one.snr_convention) for one in recordings} == {(10.0, "start", "exact")}


def test_paper_variants_share_domains() -> None:
    paper = load_suite("paper")
    for name in ("paper-ablations", "paper-tiny", "paper-small", "paper-large"):
        assert load_suite(name).domains == paper.domains
    ablations = load_suite("paper-ablations")
    counts = {
        choice.adapted(ablations.adaptation).candidates for choice in ablations.methods if choice.name[-1].isdigit()
    }
    assert counts == {4, 8, 16, 32, 64}
    alone = [choice.method().objective for choice in ablations.methods if choice.name.endswith(("policy", "entropy"))]
    assert len(alone) == 4
    assert all(objective is not None and objective.policy != objective.entropy for objective in alone)


def test_extending_inherits_unset_values(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "layers.toml").write_text(LAYERS + "[runtime]\nbatch_size = 3\nworkers = 2\n")
    child = tmp_path / "child.toml"
    child.write_text('extends = "base/layers.toml"\nname = "child"\nruntime = { workers = 5 }\n')
    base, suite = load_suite(str(tmp_path / "base" / "layers.toml")), load_suite(str(child))
    assert suite.domains == base.domains  # the folder's path is relative to the file that names it
    assert (suite.name, suite.runtime.batch_size, suite.runtime.workers) == ("child", 3, 5)
    child.write_text('extends = "base/layers.toml"\nname = "child"\nmodel = { name = "org/other" }\n')
    assert load_suite(str(child)).model.revision is None
    grandchild = tmp_path / "grandchild.toml"
    grandchild.write_text('extends = "child.toml"\nname = "grandchild"\nmethods = ["em-tok"]\n' + CLEAN)
    suite = load_suite(str(grandchild))
    assert [domain.name for domain in suite.domains] == ["clean"]
    assert (suite.model.name, [choice.name for choice in suite.methods]) == ("org/other", ["em-tok"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('extends = "demo"\n', r"extends 'demo' but has no name"),
        (
            'extends = "dmeo"\nname = "x"\n',
            r"unknown suite 'dmeo' \(did you mean 'demo'\?\); choose from: baselines, continual, demo",
        ),
        ('extends = "gone.toml"\nname = "x"\n', r"no suite file 'gone.toml'"),
        ('extends = 3\nname = "x"\n', r"extends is 3; it must be a shipped suite's name"),
        ('extends = "mine.toml"\nname = "x"\n', r"extends 'mine.toml', which in turn extends it"),
        ('extends = "demo"\nname = "x"\n[groups.noise]\ncorpus = {}\n', r"defaults and groups belong to the domains"),
        ('extends = "demo"\nname = "x"\nadaptation = { steps = 0 }\n', r"adaptation.steps"),
    ],
)
def test_invalid_extends_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_suite(str(path))


def test_domain_inherits_from_group() -> None:
    suite = parse_suite(LAYERS)
    babble, loud = suite.domain("BA"), suite.domain("loud")
    assert babble.corpus == Synthetic(language="en", voices=("en-us+m1",), utterances=7, rate=150)
    assert isinstance(loud.corpus, Synthetic)
    assert loud.corpus.rate == 160
    assert babble.corruption is not None and loud.corruption is not None
    assert (babble.corruption.kind, babble.corruption.snr_db) == ("babble", 5)
    assert (loud.corruption.kind, loud.corruption.snr_db) == ("typing", -5)


def test_other_corpus_ignores_defaults() -> None:
    mine = parse_suite(LAYERS, folder=Path("/data")).domain("mine")
    assert mine.corpus == Folder(path="/data/speech")
    assert mine.corruption is None


def test_relative_paths_start_at_file(suite_file: SuiteFile, tmp_path: Path) -> None:
    corpus = load_suite(str(suite_file())).domains[0].corpus
    assert isinstance(corpus, Folder)
    assert corpus.path == str(tmp_path / "speech")


@pytest.mark.parametrize(("name", "found"), [("mine", "{folder}/mine"), ("demo", "demo"), ("openai/x", "openai/x")])
def test_model_folder_is_relative_to_file(name: str, found: str, suite_file: SuiteFile, tmp_path: Path) -> None:
    for folder in ("mine", "demo"):
        (tmp_path / folder).mkdir()
    path = suite_file()
    path.write_text(re.sub(r'model = \{ name = "[^"]*"', f'model = {{ name = "{name}"', path.read_text()))
    assert load_suite(str(path)).model.name == found.format(folder=tmp_path)


def test_snr_override_starts_new_run() -> None:
    by_file, by_call = load_suite("paper"), load_suite("paper", snr_convention="msnsd-old")
    noisy = [domain.corruption for domain in by_call.domains if domain.group == "noise"]
    assert {getattr(corruption, "snr_convention", None) for corruption in noisy} == {"msnsd-old"}
    assert by_call.identity() != by_file.identity()
    assert load_suite("paper", snr_convention="exact").identity() == by_file.identity()
    rest = [domain for domain in by_call.domains if domain.group != "noise"]
    assert rest == [domain for domain in by_file.domains if domain.group != "noise"]


def test_snr_override_needs_ratio() -> None:
    with pytest.raises(UsageError, match="the SNR convention is 'msnsd-old', but no domain of the suite"):
        load_suite("robustness", snr_convention="msnsd-old")


def test_limit_override_beats_file(suite_file: SuiteFile) -> None:
    path = str(suite_file())
    assert load_suite(path).limit is None
    assert load_suite(path, limit=3).limit == 3


@pytest.mark.parametrize("name", suite_names())
def test_suite_roundtrips_through_toml(name: str) -> None:
    suite = load_suite(name, limit=5)
    assert parse_suite(suite.to_toml()) == suite


@given(st.text(st.characters(exclude_categories=["Cs"])), st.floats(min_value=1e-12, max_value=0.9))
def test_any_text_and_number_roundtrip(description: str, learning_rate: float) -> None:
    suite = parse_suite(LAYERS)
    adaptation = replace(suite.adaptation, learning_rate=learning_rate)
    changed = suite.model_copy(update={"description": description, "adaptation": adaptation})
    assert parse_suite(changed.to_toml()) == changed


MISTAKES = {
    "a wrong type": ('steps = "ten"', ["adaptation.steps is 'ten'", "integer"]),
    "a number as text": ('steps = "10"', ["adaptation.steps is '10'", "integer"]),
    "a number out of range": ("steps = 0", ["adaptation.steps is 0", "greater than or equal to 1"]),
    "an unknown field": ("stepz = 3", ["adaptation.stepz is an unknown field", "steps"]),
}


@pytest.mark.parametrize(("line", "words"), MISTAKES.values(), ids=MISTAKES)
def test_error_names_field_and_choices(line: str, words: list[str]) -> None:
    text = LAYERS.replace("[defaults]", f"[adaptation]\n{line}\n[defaults]")
    with pytest.raises(UsageError) as refusal:
        parse_suite(text, origin="layers.toml")
    for word in ["layers.toml", *words]:
        assert word in str(refusal.value)


REPLACEMENTS = {
    "an unknown method": ('"source"]', '"sauce"]', ["methods", "'sauce'", "em-tok-b"]),
    "a method twice": ('"source"]', '"source", "source"]', ["method", "twice: source"]),
    "no method": ('["source"]', "[]", ["methods", "at least 1"]),
    "a domain twice": ('"loud"', '"BA"', ["domain", "twice: BA"]),
    "a bad name": ('"loud"', '"too loud"', ["domains[too loud].name", "'too loud'", "letters"]),
    "a bad name that leaves the store": ('"loud"', '"../loud"', ["domains[../loud].name"]),
    "a name that readers take for none": ('"loud"', '"Null"', ["domains[Null].name", "'Null'", "missing"]),
    "an empty name of a model": ('name = "demo"', 'name = ""', ["model.name is ''", "it should have at least 1"]),
    "a name too long": ('"loud"', f'"{"x" * 101}"', ["domains[xxx", "at most 100"]),
    "domains that differ in case alone": ('"loud"', '"ba"', ["domains must differ", "BA, ba"]),
    "groups that differ in case alone": ('group = "own"', 'group = "Noise"', ["groups must differ", "Noise, noise"]),
    "a group of the reports' own name": ('group = "own"', 'group = "all"', ["domains[mine].group", "'all'", "choose"]),
    "a group named as a column": ('group = "own"', 'group = "Method"', ["domains[mine].group", "'Method'", "choose"]),
    "a group named as another": ('group = "own"', 'group = "change_percent"', ["'change_percent'", "choose"]),
    "an unknown kind of noise": ('"typing"', '"tapping"', ["domains[loud].corruption.kind", "'tapping'", "babble"]),
    "an unknown corruption": (
        'name = "noise", snr',
        'name = "hum", snr',
        ["corruption.name", "'hum'", "'echo'"],
    ),
    "an unknown corpus": ('name = "synthetic"', 'name = "vinyl"', ["corpus.name", "'vinyl'", "folder"]),
    "an unknown field of a corpus": (
        "rate = 160",
        "speed = 160",
        ["domains[loud].corpus.speed is an unknown field", "rate"],
    ),
    "a missing field": ('kind = "babble"', "", ["domains[BA].corruption.kind is missing"]),
    "a wrong type in a domain": ("rate = 160", 'rate = "fast"', ["domains[loud].corpus.rate is 'fast'", "integer"]),
    "an unknown field at the top": (
        'name = "layers"',
        'name = "layers"\nspeed = 1',
        ["speed is an unknown field", "methods"],
    ),
    "a group that no domain has": ("[groups.noise]", "[groups.noises]", ["groups.noises", "noise"]),
    "something else in the defaults": ("[defaults]", "[defaults]\nsteps = 3", ["defaults", "corpus and corruption"]),
    "text that is no TOML": ("[defaults]", "[defaults", ["not valid TOML", "line"]),
}


@pytest.mark.parametrize(("there", "instead", "words"), REPLACEMENTS.values(), ids=REPLACEMENTS)
def test_invalid_suite_is_explained(there: str, instead: str, words: list[str]) -> None:
    assert there in LAYERS
    with pytest.raises(UsageError) as refusal:
        parse_suite(LAYERS.replace(there, instead), origin="layers.toml")
    for word in words:
        assert word in str(refusal.value)


def test_all_mistakes_are_reported() -> None:
    text = LAYERS.replace("rate = 160", 'rate = "fast"').replace('"typing"', '"tapping"')
    with pytest.raises(UsageError, match="2 mistakes"):
        parse_suite(text)


def test_unknown_name_lists_known() -> None:
    with pytest.raises(
        UsageError, match=r"unknown suite 'dmeo' \(did you mean 'demo'\?\); choose from: baselines, continual, demo, "
    ):
        load_suite("dmeo")


def test_missing_file_is_refused_by_path(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no suite file .*mine\.toml"):
        load_suite(str(tmp_path / "mine.toml"))


def test_unknown_domain_lists_known() -> None:
    with pytest.raises(UsageError, match="unknown domain 'AB'; choose from: BA, loud, mine"):
        parse_suite(LAYERS).domain("AB")


def test_documented_layout_is_valid(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "suites.md"
    block = page.read_text(encoding="utf-8").split("```toml\n")[1].split("```")[0]
    suite = parse_suite(block, folder=tmp_path)
    assert isinstance(suite, Suite)
    assert [domain.name for domain in suite.domains] == ["clean", "babble"]


def test_documented_methods_are_valid() -> None:
    page = Path(__file__).parents[2] / "docs" / "suites.md"
    block = page.read_text(encoding="utf-8").split("## Methods")[1].split("```toml\n")[1].split("```")[0]
    suite = parse_suite(LAYERS.replace('methods = ["source"]\n', block))
    assert [choice.name for choice in suite.methods][2:] == ["late-credit", "encoder-only", "sampled+mbr", "mbr-64"]


def test_runtime_accepts_named_choices() -> None:
    text = LAYERS.replace("[defaults]", '[runtime]\nbatch_size = "auto"\ntrace = "metrics"\n[defaults]')
    runtime = parse_suite(text).runtime
    assert (runtime.batch_size, runtime.trace) == ("auto", "metrics")


@pytest.mark.parametrize(
    ("there", "instead", "words"),
    [
        ('batch_size = "auto"', "batch_size = 0", ["runtime.batch_size"]),
        ('batch_size = "auto"', 'batch_size = "most"', ["runtime.batch_size", "'most'", "'auto'"]),
        ('trace = "metrics"', 'trace = "all"', ["runtime.trace is 'all'", "'none', 'metrics' or 'hypotheses'"]),
        ('name = "demo"', 'name = "demo", precision = "fp16"', ["model.precision is 'fp16'", "'bf16'"]),
        ("[runtime]", "[adaptation]\nearly_stop = inf\n[runtime]", ["adaptation.early_stop is inf", "finite"]),
    ],
)
def test_invalid_choice_is_refused(there: str, instead: str, words: list[str]) -> None:
    text = LAYERS.replace("[defaults]", '[runtime]\nbatch_size = "auto"\ntrace = "metrics"\n[defaults]')
    assert there in text
    with pytest.raises(UsageError) as refusal:
        parse_suite(text.replace(there, instead))
    for word in words:
        assert word in str(refusal.value)


def test_single_domain_adds_no_others(suite_file: SuiteFile) -> None:
    assert [domain.name for domain in load_suite(str(suite_file(CLEAN))).domains] == ["clean"]


def test_errors_of_all_domains_are_listed(suite_file: SuiteFile) -> None:
    with pytest.raises(UsageError) as refusal:
        load_suite(str(suite_file(CLEAN.replace("path", "pth"))))
    assert "has 2 mistakes" in str(refusal.value)
    assert "domains[clean].corpus.pth is an unknown field" in str(refusal.value)
    assert "after validation" not in str(refusal.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("timeout = inf", "runtime.timeout is inf"),
        ("timeout = 0", "runtime.timeout is 0"),
        ("fail_on_error = 1.5", "runtime.fail_on_error"),
        ("fail_on_error = -1", "runtime.fail_on_error"),
        ("retry_on_error = 0.5", "runtime.retry_on_error is 0.5"),
        ('isolation = "thread"', "runtime.isolation is 'thread'"),
        ('batch_size = "all"', "runtime.batch_size"),
    ],
)
def test_runtime_out_of_range_is_refused(line: str, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        parse_suite(LAYERS.replace("[defaults]", f"[runtime]\n{line}\n[defaults]"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name = " + "[" * 30_000 + "]" * 30_000, "nested more than 50 deep"),
        ("name = " + "[" * 60 + "]" * 60, "nested more than 50 deep"),
        (".".join(["a"] * 200_000) + " = 1", "a key has more than 50 dotted parts"),
        ("[" + " . ".join(['"a"'] * 1_000) + "]", "a key has more than 50 dotted parts"),
    ],
)
def test_deep_nesting_is_refused(text: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        parse_suite(text)


def test_extends_chain_is_limited(tmp_path: Path) -> None:
    for number in range(1_500):
        (tmp_path / f"{number}.toml").write_text(f'name = "s{number}"\nextends = "{number + 1}.toml"\n')
    with pytest.raises(UsageError, match="more than 20 suites extend one another"):
        load_suite(str(tmp_path / "0.toml"))
