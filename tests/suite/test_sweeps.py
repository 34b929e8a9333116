"""A sweep adds a method for each combination of its values, and names it after them."""

import pytest

from emtta_core.errors import UsageError
from emtta_core.pipeline.plan import plan
from emtta_core.suite import Suite, parse_suite

SUITE = """\
name = "swept"
methods = ["source", {method}]
model = {{ name = "demo" }}
[[domains]]
name = "clean"
group = "clean"
corpus = {{ name = "synthetic", utterances = 2 }}
"""


def suite(method: str) -> Suite:
    return parse_suite(SUITE.format(method=method))


def test_each_combination_is_a_method() -> None:
    swept = "sweep = { learning_rate = [1e-4, 1e-3], steps = [5, 10] }"
    made = suite('{ name = "em-tok-b", adaptation = { candidates = 4 }, ' + swept + " }")
    assert [choice.name for choice in made.methods] == [  # options in a fixed order, however they are written
        "source",
        "em-tok-b+steps-5+learning_rate-0.0001",
        "em-tok-b+steps-5+learning_rate-0.001",
        "em-tok-b+steps-10+learning_rate-0.0001",
        "em-tok-b+steps-10+learning_rate-0.001",
    ]
    point = made.methods[3]
    options = made.options_of(point, None)
    assert (options.learning_rate, options.steps, options.candidates) == (1e-4, 10, 4)
    assert point.method().candidates == "beam"
    again = parse_suite(made.to_toml())
    assert again == made
    cells = [[cell.cell_id for cell in plan(one, "0" * 16).cells] for one in (made, again)]
    assert cells[0] == cells[1]
    assert len(set(cells[0])) == 5


def test_names_contain_booleans_and_numbers() -> None:
    made = suite('{ name = "mine", credit = "to-go", sweep = { redraw = [true, false], epsilon = [1e-8] } }')
    assert [choice.name for choice in made.methods[1:]] == [
        "mine+epsilon-1e-08+redraw-true",
        "mine+epsilon-1e-08+redraw-false",
    ]
    assert [choice.method().candidates for choice in made.methods[1:]] == ["sample", "sample"]


REFUSALS = {
    "an unknown option": ("{ step = [1] }", r"methods\[mine\]\.sweep\.step is an unknown field"),
    "a value out of range": ("{ steps = [5, 0] }", r"sweep\.steps\[1\] is 0; it should be greater than or equal to 1"),
    "no list": ("{ steps = 5 }", r"sweep\.steps is 5; it should be a valid (list|array)"),
    "no values": ("{ steps = [] }", r"the sweep of 'mine' has no values; set sweep = \{ steps = \[5, 10\] \}"),
    "no options": ("{ }", "has no values"),
    "a value twice": ("{ steps = [5, 5] }", "has a value of steps twice"),
    "an option that it does not use": ("{ beams = [4, 8] }", r"does not use sweep\.beams"),
    "a pair": ("{ betas = [[0.9, 0.99]] }", r"sweep\.betas is an unknown field"),
    "a seed": ("{ seed = [1, 2] }", r"sweep\.seed is an unknown field"),
    "too many": (f"{{ steps = {[*range(1, 1001)]}, candidates = [2, 4] }}", "has more than 1000 methods"),
}


@pytest.mark.parametrize(("sweep", "words"), REFUSALS.values(), ids=REFUSALS)
def test_invalid_sweep_is_refused(sweep: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        suite('{ name = "mine", base = "em-tok", sweep = ' + sweep + " }")


def test_option_is_fixed_or_swept() -> None:
    with pytest.raises(UsageError, match="'mine' has steps both in adaptation and in its sweep"):
        suite('{ name = "mine", base = "em-tok", adaptation = { steps = 3 }, sweep = { steps = [5] } }')
