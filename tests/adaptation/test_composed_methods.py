"""Methods composed in a suite: reading and writing, errors, identity, and a complete run."""

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
from conftest import Command, Speech, SuiteFile

from emtta_core.adaptation.methods import (
    METHODS,
    OBJECTIVES,
    Candidates,
    Decision,
    Method,
    Objective,
    Parameters,
    method,
)
from emtta_core.adaptation.options import USES
from emtta_core.errors import UsageError
from emtta_core.pipeline.plan import plan
from emtta_core.store import Catalogue, Store
from emtta_core.suite import Suite, parse_suite
from emtta_core.suite.composed_methods import MethodChoice

SUITE = """\
name = "composed"
methods = [{methods}]
model = {{ name = "demo" }}
adaptation = {{ steps = 3, candidates = 4 }}
{more}
[[domains]]
name = "clean"
group = "clean"
corpus = {{ name = "synthetic", utterances = 2 }}
"""

WHOLE = (
    '{ name = "mine", base = "em-tok-b", candidates = "sample", estimator = "sequence", policy = true, '
    'entropy = false, credit = "to-go", baseline = "none", normalization = "sequence", '
    'parameters = "decoder-layernorm", decision = "mbr", '
    "adaptation = { steps = 5, candidates = 6, learning_rate = 0.002, weight_decay = 0.02, "
    "betas = [0.8, 0.99], epsilon = 1e-6, redraw = false, early_stop = 0.01, adapt_above = 0.2, "
    "revert = true } }"
)


def suite(*methods: str, more: str = "") -> Suite:
    return parse_suite(SUITE.format(methods=", ".join(methods), more=more))


def cells(*methods: str, more: str = "") -> list[str]:
    return [cell.cell_id for cell in plan(suite(*methods, more=more), "0123456789abcdef").cells]


def test_every_part_is_selectable() -> None:
    choice = suite(WHOLE).method("mine")
    objective = Objective("sequence", True, False, "to-go", "none", "sequence")
    made = choice.method()
    assert made == Method("mine", "sample", objective, "decoder-layernorm", "mbr", made.summary)
    own = choice.adapted(suite(WHOLE).adaptation)
    assert asdict(own) == {
        "steps": 5,
        "candidates": 6,
        "learning_rate": 0.002,
        "weight_decay": 0.02,
        "betas": (0.8, 0.99),
        "epsilon": 1e-6,
        "redraw": False,
        "beams": 8,
        "seed": 0,
        "early_stop": 0.01,
        "adapt_above": 0.2,
        "revert": True,
    }
    parts = {field.name for field in fields(Objective)} | PARTS.keys()
    assert parts | {*WHOLES} == set(MethodChoice.model_fields)


@pytest.mark.parametrize("base", METHODS)
def test_unset_parts_come_from_base(base: str) -> None:
    choice = suite(f'{{ name = "mine", base = "{base}" }}').method("mine")
    assert choice.method() == replace(method(base), name="mine", summary=choice.method().summary)
    assert choice.adapted(suite('"source"').adaptation) == suite('"source"').adaptation


def test_default_base_is_em_tok() -> None:
    made = suite('{ name = "mine", credit = "to-go" }').method("mine").method()
    assert made == Method("mine", "sample", Objective(credit="to-go"), summary=made.summary)


def test_bare_name_equals_table() -> None:
    assert cells('{ name = "em-tok" }') == cells('"em-tok"')


@pytest.mark.parametrize("written", [WHOLE, '"em-tok-b+mbr"', '{ name = "x", policy = false }', '{ name = "em-seq" }'])
def test_written_method_reads_back_equal(written: str) -> None:
    one = suite('"source"', written)
    again = parse_suite(one.to_toml())
    assert again == one
    assert again.identity() == one.identity()
    assert cells('"source"', written) == [cell.cell_id for cell in plan(again, "0123456789abcdef").cells]


REFUSALS = {
    "a name that there is not": ('"em-tuk"', ["methods[0]", "unknown method 'em-tuk'", "em-tok-b+mbr"]),
    "a name alone in a table": ('{ name = "mine" }', ["methods[mine]", "unknown method 'mine'"]),
    "a base that there is not": ('{ name = "mine", base = "em-tuk" }', ["methods[mine]", "'em-tuk'", "greedy-em"]),
    "a name that is taken": ('{ name = "em-tok", credit = "to-go" }', ["the name 'em-tok'", "another"]),
    "a taken name in other letters": ('{ name = "EM-Tok-B", credit = "to-go" }', ["the name 'EM-Tok-B'", "another"]),
    "no name": ('{ base = "em-tok" }', ["methods[0].name is missing"]),
    "a name that is no name": ('{ name = "my own", base = "em-tok" }', ["'my own'", "letters, digits"]),
    "a reserved name": ('{ name = "null", base = "em-tok" }', ["'null'", "missing"]),
    "no loss": ('{ name = "mine", policy = false, entropy = false }', ["'mine' has no loss", "policy = true"]),
    "no loss at the sequence level": (
        '{ name = "mine", policy = false, estimator = "sequence" }',
        ["'mine' has no loss", "estimator = 'token'"],
    ),
    "an unknown credit": ('{ name = "mine", credit = "late" }', ["methods[mine].credit is 'late'", "'to-go'"]),
    "an unknown baseline": ('{ name = "mine", baseline = "mean" }', ["methods[mine].baseline is 'mean'", "'none'"]),
    "unknown parameters": ('{ name = "mine", parameters = "all" }', ["methods[mine].parameters", "'layernorm'"]),
    "an unknown decision": ('{ name = "mine", decision = "best" }', ["methods[mine].decision is 'best'", "'mbr'"]),
    "beams without a search": (
        '{ name = "mine", adaptation = { beams = 4 } }',
        ["'mine' does not use adaptation.beams: remove that"],
    ),
    "an unknown field": ('{ name = "mine", polcy = true }', ["methods[mine].polcy is an unknown field", "policy"]),
    "a switch that is a text": ('{ name = "mine", policy = "yes" }', ["methods[mine].policy is 'yes'", "boolean"]),
    "a number as a method": ("3", ["methods[0] is 3"]),
    "no updates": (
        '{ name = "mine", adaptation = { steps = 0 } }',
        ["methods[mine].adaptation.steps is 0", "greater than or equal to 1"],
    ),
    "one candidate": ('{ name = "mine", adaptation = { candidates = 1 } }', ["adaptation.candidates is 1", "to 2"]),
    "a tolerance below zero": ('{ name = "mine", adaptation = { early_stop = -1.0 } }', ["early_stop is -1.0"]),
    "a tolerance without end": (
        '{ name = "mine", adaptation = { early_stop = inf } }',
        ["early_stop is inf", "finite"],
    ),
    "an unknown option": (
        '{ name = "mine", adaptation = { stepz = 3 } }',
        ["stepz is an unknown field", "adapt_above, beams, betas, candidates"],
    ),
    "credit without an update": ('{ name = "mine", base = "mbr", credit = "to-go" }', ["does not use credit"]),
    "a baseline without a policy gradient": (
        '{ name = "mine", base = "greedy-em", baseline = "none" }',
        ["does not use baseline"],
    ),
    "a gate without an update": (
        '{ name = "mine", base = "source-beam", adaptation = { adapt_above = 0.1, revert = true } }',
        ["'mine' does not use adaptation.adapt_above, adaptation.revert: remove that"],
    ),
    "a seed of its own": (
        '{ name = "mine", base = "em-tok-b", adaptation = { steps = 2, seed = 1 } }',
        ["adaptation.seed is 1; set seeds = [1] at the top of the suite instead"],
    ),
}


@pytest.mark.parametrize(("written", "words"), REFUSALS.values(), ids=REFUSALS)
def test_invalid_method_is_refused(written: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as refusal:
        suite(written)
    for word in ["a mistake", *words]:
        assert word in str(refusal.value)


@pytest.mark.parametrize(
    ("methods", "words"),
    [
        (['"source"', '"source"'], "named twice: source"),
        (['{ name = "a", credit = "to-go" }', '{ name = "a", baseline = "none" }'], "named twice: a"),
        (['{ name = "a", credit = "to-go" }', '{ name = "A", baseline = "none" }'], "case: A, a"),
        (['"em-tok-b"', '{ name = "EM-TOK-B", base = "em-tok-b" }'], "EM-TOK-B"),
    ],
)
def test_duplicate_names_are_refused(methods: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        suite(*methods)


WHOLES = ("name", "base", "adapter", "adaptation", "sweep", "stream")
PARTS = {
    "candidates": get_args(Candidates),
    "objective": tuple(OBJECTIVES),
    "parameters": get_args(Parameters),
    "decision": get_args(Decision),
}


def other(name: str) -> list[str]:
    """Return the values that a field of a composed method may have, as TOML."""
    values = PARTS.get(name) or get_args(get_type_hints(Objective)[name]) or (True, False)
    return [str(value).lower() if isinstance(value, bool) else f'"{value}"' for value in values]


@pytest.mark.parametrize("name", [name for name in MethodChoice.model_fields if name not in WHOLES])
def test_each_part_value_is_own_cell(name: str) -> None:
    made = {cells(f'{{ name = "mine", {name} = {value} }}')[0] for value in other(name)}
    assert len(made) == len(other(name)) > 1


@pytest.mark.parametrize("option", sorted(USES.keys() - {"seed"}))
def test_option_affects_only_its_cell(option: str) -> None:
    values = {
        **{"steps": "9", "candidates": "9", "redraw": "false", "learning_rate": "0.009", "weight_decay": "0.09"},
        **{"betas": "[0.8, 0.999]", "epsilon": "1e-7", "early_stop": "0.009", "beams": "9"},
        **{"adapt_above": "0.09", "revert": "true"},
    }
    value = values[option]
    more = 'decision = "beam", ' if option == "beams" else ""
    plain = cells('"em-tok"', f'{{ name = "mine", {more}base = "em-tok" }}')
    own = cells('"em-tok"', f'{{ name = "mine", base = "em-tok", {more}adaptation = {{ {option} = {value} }} }}')
    assert own[0] == plain[0]
    assert own[1] != plain[1]


def test_rephrased_method_is_same_cell() -> None:
    assert cells('{ name = "mine", base = "em-tok-b" }') == cells('{ name = "mine", candidates = "beam" }')
    same = '{ name = "mine", base = "em-tok", adaptation = { steps = 3 } }'
    assert cells(same) == cells('{ name = "mine", base = "em-tok" }')


def test_runtime_settings_change_no_cell() -> None:
    plain = cells(WHOLE)
    for more in ('runtime = { trace = "none" }', 'runtime = { batch_size = "auto" }', "runtime = { batch_size = 3 }"):
        assert cells(WHOLE, more=more) == plain


def test_composed_methods_run_and_report(
    suite_file: SuiteFile, speech: Speech, tmp_path: Path, emtta: Command, prefect_server: str
) -> None:
    path, store = suite_file(methods=("source",)), tmp_path / "store"
    composed = (
        'methods = ["source", "source-beam", "mbr", '
        '{ name = "gated", base = "em-tok-b+beam", adaptation = { adapt_above = 100.0, beams = 3, revert = true } }, '
        '{ name = "late-credit", base = "em-tok-b", credit = "to-go", parameters = "encoder-layernorm" }, '
        '{ name = "brief+mbr", decision = "mbr", adaptation = { steps = 2, early_stop = 1000.0 } }]'
    )
    text = path.read_text().replace("methods = ['source']", composed).replace("batch_size = 2", 'batch_size = "auto"')
    path.write_text(text.replace("steps = 1", "steps = 4"))
    assert composed in path.read_text()
    done = emtta("run", path, "--store", store)
    assert done.code == 0, done.err
    assert all(name in done.out for name in ("late-credit", "brief+mbr"))
    opened = Store.open(store)
    (run_id,) = opened.runs()
    with Catalogue(opened) as catalogue:
        rows = catalogue.query("SELECT method, state, done FROM cells ORDER BY method").rows
        names = ["brief+mbr", "gated", "late-credit", "mbr", "source", "source-beam"]
        assert rows == [(name, "complete", 3) for name in names]
        updates = "SELECT method, max(step) FROM steps GROUP BY method ORDER BY method"
        assert catalogue.query(updates).rows == list(zip(names, (2, 0, 4, 0, 0, 0), strict=True))
        flagged = "SELECT DISTINCT method FROM utterances WHERE list_contains(flags, 'gated')"
        assert catalogue.query(flagged).rows == [("gated",)]
        assert catalogue.query("SELECT DISTINCT batch_size FROM attempts").rows == [(3,)]
        board = catalogue.report("methods", run_id).rows
    assert [row[0] for row in board] == ["source", "source-beam", "mbr", "brief+mbr", "gated", "late-credit"]
    again = emtta("run", path, "--store", store)
    assert "nothing to do, all of its 6 cells are complete" in again.out + again.err


@pytest.mark.slow
def test_trace_setting_keeps_hypotheses(
    suite_file: SuiteFile, speech: Speech, tmp_path: Path, emtta: Command, prefect_server: str
) -> None:
    path = suite_file(methods=("source", "em-tok-b"))
    query = "SELECT method, utterance_id, hypothesis, tokens, errors FROM utterances ORDER BY ALL"
    found = []
    for trace, steps in (("hypotheses", 9), ("none", 0)):
        path.write_text(path.read_text().replace("retries = 1", f'retries = 1, trace = "{trace}"'))
        store = tmp_path / trace
        assert emtta("run", path, "--store", store).code == 0
        assert emtta("report", "steps", "--store", store).code == 0
        with Catalogue(Store.open(store)) as catalogue:
            found.append(catalogue.query(query).rows)
            assert catalogue.query("SELECT count(*) FROM steps").rows == [(steps,)]
        path.write_text(path.read_text().replace(f', trace = "{trace}"', ""))
    assert found[0] == found[1]
    assert len(found[0]) == 6
