"""A stream is part of the identity of its own cells only; an invalid one is refused with a remedy."""

import pytest

from emtta_core.errors import UsageError
from emtta_core.pipeline.plan import plan
from emtta_core.pipeline.selection import expand_to_streams, select, work_units_of
from emtta_core.suite import Suite, parse_suite

DIGEST = "0123456789abcdef"
METHODS = 'methods = ["source", "em-tok-b", { name = "continual", base = "em-tok-b", stream = { reset = "never" } }]\n'
HEAD = """\
name = "streams"
model = { name = "demo" }
adaptation = { steps = 3, candidates = 4 }
"""
DOMAINS = """
[defaults]
corpus = { name = "synthetic", utterances = 2 }
[[domains]]
name = "loud"
group = "noise"
corruption = { name = "noise", kind = "babble", snr_db = 0 }
[[domains]]
name = "clean"
group = "clean"
[[domains]]
name = "soft"
group = "noise"
corruption = { name = "noise", kind = "gaussian", snr_db = 20 }
[[domains]]
name = "clean-again"
group = "clean"
"""


def suite(stream: str = "", methods: str = 'methods = ["source", "em-tok-b"]\n', domains: str = DOMAINS) -> Suite:
    return parse_suite(methods + HEAD + (f"[stream]\n{stream}\n" if stream else "") + domains)


def ids(made: Suite) -> dict[tuple[str, str], str]:
    return {(cell.domain, cell.method): cell.cell_id for cell in plan(made, DIGEST).cells}


def test_episodic_cells_keep_identity() -> None:
    """Results in a store stay reusable, whatever streams a suite adds."""
    episodic = ids(suite())
    assert episodic["loud", "em-tok-b"] == "5432b20710cf4d44"
    mixed = ids(suite(methods=METHODS))
    assert {key: mixed[key] for key in episodic} == episodic
    streamed = ids(suite('reset = "never"'))
    assert {key for key in episodic if streamed[key] == episodic[key]} == {
        (domain, "source") for domain in ("loud", "clean", "soft", "clean-again")
    }


def test_identity_covers_everything_before() -> None:
    usual = ids(suite('reset = "never"'))
    first, rest = DOMAINS.split("[[domains]]")[0], DOMAINS.split("[[domains]]")[1:]
    loud, clean, soft, again = rest
    swapped = ids(suite('reset = "never"', domains="[[domains]]".join([first, loud, soft, clean, again])))
    fewer = ids(suite('reset = "never"', domains="[[domains]]".join([first, loud, clean])))
    same = {
        domain
        for domain in ("loud", "clean", "soft", "clean-again")
        if usual[domain, "em-tok-b"] == swapped[domain, "em-tok-b"]
    }
    assert same == {"loud"}
    assert fewer["clean", "em-tok-b"] == usual["clean", "em-tok-b"] != usual["clean-again", "em-tok-b"]
    alone = ids(suite('reset = "domain"'))
    assert alone["clean", "em-tok-b"] == alone["clean-again", "em-tok-b"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('reset = "never"', 'reset = "dynamic"'),
        ('reset = "every-2"', 'reset = "every-3"'),
        ('reset = "dynamic"', 'reset = "dynamic-20"'),
        ('order = "shuffled"', 'order = "shuffled"\nseed = 1'),
        ('order = "mixed"', 'order = "mixed"\nseed = 1'),
        ('order = "gradual"', 'order = "corpus"'),
    ],
)
def test_each_setting_changes_cell(one: str, other: str) -> None:
    assert ids(suite(one))["clean", "em-tok-b"] != ids(suite(other))["clean", "em-tok-b"]


@pytest.mark.parametrize(
    ("stream", "works"),
    [
        ('reset = "domain"', [["loud"], ["clean"], ["soft"], ["clean-again"]]),
        ('reset = "every-2"\norder = "shuffled"', [["loud"], ["clean"], ["soft"], ["clean-again"]]),
        ('reset = "never"', [["loud", "clean", "soft", "clean-again"]]),
        ('reset = "every-2"\norder = "mixed"', [["loud", "clean", "soft", "clean-again"]]),
        ('reset = "dynamic"\norder = "gradual"', [["clean", "clean-again", "soft", "loud"]]),
    ],
)
def test_stream_domains_run_together(stream: str, works: list[list[str]]) -> None:
    made = suite(stream)
    cells = plan(made, DIGEST).cells
    found = [[cell.domain for cell in work] for work in work_units_of(made, cells) if work[0].method == "em-tok-b"]
    assert found == works
    chosen = expand_to_streams(made, cells, select(cells, ["domain=soft", "method=em-tok-b"]))
    assert {cell.domain for cell in chosen} == set(next(work for work in works if "soft" in work))


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        ('reset = "sometimes"', "stream.reset: reset is 'sometimes'; choose from: utterance, never, domain, every-N"),
        ('reset = "every-0"', "reset is 'every-0'; choose from: .* every-N such as every-50"),
        ('order = "alphabetical"', "stream.order is 'alphabetical'; it should be 'corpus', 'shuffled'"),
        ('reset = "domain"\norder = "mixed"', "each domain is a separate stream, so order = 'mixed' has no meaning"),
        ('reset = "utterance"\norder = "mixed"', "the order has no effect; remove order = 'mixed'"),
        ("seed = 3", "seed is 3, but order = 'corpus' shuffles nothing; remove the seed"),
        ("resets = 3", "stream.resets is an unknown field; choose from: order, reset, seed"),
    ],
)
def test_bad_stream_is_refused(stream: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        suite(stream)


def test_gradual_needs_one_scale() -> None:
    graded = DOMAINS.replace('{ name = "noise", kind = "gaussian", snr_db = 20 }', '{ name = "gain", severity = 2 }')
    with pytest.raises(UsageError, match="'soft' has a severity from 0 to 5 and 'loud' a signal-to-noise ratio"):
        suite('order = "gradual"', domains=graded)
    clean = DOMAINS[: DOMAINS.index("[[domains]]")] + '[[domains]]\nname = "clean"\ngroup = "clean"\n'
    with pytest.raises(UsageError, match="none of clean has a corruption; choose another order"):
        suite('order = "gradual"', domains=clean)


def test_methods_without_state_are_refused() -> None:
    own = 'methods = [{ name = "mine", adapter = "package.module:Mine" }]\n'
    with pytest.raises(UsageError, match="'mine' is a plug-in with its own loop, whose state a stream cannot keep"):
        suite('reset = "never"', methods=own)
    with pytest.raises(UsageError, match="'sampled' does not use stream: remove that"):
        suite(methods='methods = [{ name = "sampled", base = "mbr", stream = { reset = "never" } }]\n')


def test_stream_roundtrips() -> None:
    made = suite('reset = "every-50"\norder = "shuffled"\nseed = 7', methods=METHODS)
    assert parse_suite(made.to_toml()) == made
