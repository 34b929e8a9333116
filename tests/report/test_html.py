"""The page on a run shows what is in the store, needs nothing else, and renders no value as markup.

The file is long because every part of the page is tested on the same store, with one reader of its markup.
"""

import base64
import hashlib
import io
import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import altair as alt
import numpy as np
import pytest
import soundfile
from altair.utils.schemapi import validate_jsonschema
from conftest import Command, tone
from report_factory import ERRORS, fill
from store_factory import REFERENCE, begin_run, end_attempt, with_errors, write_shard

from emtta_core.adaptation.methods import METHODS
from emtta_core.audio.files import encode_flac
from emtta_core.errors import EmttaError, UsageError
from emtta_core.pipeline.run_statistics import update_statistics
from emtta_core.report import Page, charts, make_page
from emtta_core.report.charts import Painter
from emtta_core.report.examples import Piece, word_differences
from emtta_core.report.facts import MAX_FAILURES, points, rate
from emtta_core.sanitize import escaped
from emtta_core.store import AudioBytes, Catalogue, CellKey, PreparedRow, Store

EVIL = "<script>alert(1)</script> \"quoted\" 'single' </style> &amp; <img src=x onerror=alert(1)> \x9b31m \u202eabc"

FLAC = {f"u{index}": encode_flac(tone(0.2, 200 + 50 * index)) for index in range(3)}


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A run with its prepared audio, a different tone for each utterance."""
    store = Store.open(tmp_path_factory.mktemp("complete"), create=True)
    fill(store)
    for _, domain in ERRORS:
        rows = [
            PreparedRow(
                utterance_id=name,
                audio=AudioBytes(bytes=content, path=f"{name}.flac"),
                text=REFERENCE,
                language="en",
                speaker="s",
                seconds=0.2,
                corruption=None,
                snr_db=None,
            )
            for name, content in FLAC.items()
        ]
        store.write_prepared(f"corpus-{domain}", 0, rows)
        store.finish_prepared(f"corpus-{domain}", shards=1, utterances=len(rows))
    return store


@pytest.fixture(scope="module")
def page(complete: Store) -> str:
    """The page on `complete`."""
    return make_page(complete, "run").html


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store", create=True)


class Reader(HTMLParser):
    """Collects the elements of a page, and its text outside scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.carried: list[tuple[str, str]] = []
        self.text = ""
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in ("script", "style"):
            self.carried.append((self._inside, data))
        else:
            self.text += data


def squeezed(html: str) -> str:
    """The text of a page with single spaces."""
    return " ".join(Reader(html).text.split())


def test_figures_match_reports(complete: Store, page: str) -> None:
    with Catalogue(complete) as catalogue:
        cells = catalogue.report("domains", "run").records
        groups = catalogue.report("leaderboard", "run").records
    rows = re.findall(r'<tr data-group="(.*?)" data-method="(.*?)">\s*(.*?)</tr>', page, re.DOTALL)
    assert len(rows) == len(cells) == 9
    for row, cell in zip(rows, cells, strict=True):
        assert row[:2] == (cell["group"], cell["method"])
        assert f">{cell['domain']}</th>" in row[2]
        assert f'data-v="{cell["wer"]}">{cell["wer"]:.2f}</td>' in row[2]
    board = page.split('id="leaderboard"')[1].split("</table>")[0]
    assert len(groups) == 9  # three methods, each for two groups and all
    for group in groups:
        assert f">{group['wer']:.2f}" in board.split(f'<tr data-method="{group["method"]}">')[1].split("</tr>")[0]


def test_summary_names_lowest_rate(page: str) -> None:
    text = squeezed(page)
    # WER of source: 41.67, 83.33, 8.33; of em-tok-b: 16.67, 41.67, 25.00.
    assert "em-tok-b has the lowest word error rate, 27.78 % averaged over 3 domains: 16.67 points below" in text
    assert "Of 3 domains, em-tok-b is lower than source on 2, higher on 1 and equal on 0." in text
    assert "All 9 cells are complete; none of 27 utterances is in error." in text


@pytest.fixture(scope="module")
def tested(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A run with statistics: em-tok-b is much better on one domain, and a little worse on the other."""
    store = Store.open(tmp_path_factory.mktemp("tested"), create=True)
    cells = [("g", domain, method) for domain in ("much", "little") for method in ("source", "em-tok-b")]
    begin_run(store, "run", cells, utterances=30)
    for domain, errors in (("much", (3, 1)), ("little", (1, 1))):
        for method, last in zip(("source", "em-tok-b"), errors, strict=True):
            states = {f"u{i:02d}": [with_errors(errors[0]), with_errors(last if i % 5 else 2)] for i in range(30)}
            write_shard(store, CellKey("run", domain, method), states)
    assert update_statistics(store, "run")
    return store


@pytest.fixture(scope="module")
def tested_page(tested: Store) -> str:
    """The page on `tested`."""
    return make_page(tested, "run").html


def test_stored_statistics_are_shown(tested: Store, tested_page: str) -> None:
    with Catalogue(tested) as catalogue:
        rows = catalogue.query("SELECT * FROM statistics WHERE run_id = 'run' AND method = 'em-tok-b'").records
    assert len(rows) == 4  # two domains, their group, all
    intervals = 0
    for row in rows:
        for low, high, write in (("wer_low", "wer_high", rate), ("change_low", "change_high", points)):
            if row[low] is not None:
                intervals += 1
                assert f"{write(row[low])}\N{NO-BREAK SPACE}…\N{NO-BREAK SPACE}{write(row[high])}" in tested_page
    assert intervals == 8
    (whole,) = [row for row in rows if row["group"] == "all"]
    assert f'data-v="{whole["wins"]}">{whole["wins"]} · {whole["ties"]} · {whole["losses"]}</td>' in tested_page


def test_summary_shows_significance(tested_page: str) -> None:
    text = squeezed(tested_page)
    assert "95 % interval" in text.split("lower than source")[0]
    assert "significantly better on 1 and significantly worse on 0 (test of the mean, Holm-corrected over" in text
    assert "1 speaker: the interval does not reflect how speakers differ (all (mean), g (mean), little, much)." in text


def test_insignificant_change_is_stated(store: Store) -> None:
    errors = {"source": (2, 3, 1, 4, 2, 3), "em-tok-b": (1, 3, 2, 3, 2, 3)}
    begin_run(store, "run", [("g", "d", method) for method in errors], utterances=6)
    for method, counts in errors.items():
        key = CellKey("run", "d", method)
        write_shard(store, key, {f"u{index}": [with_errors(count)] for index, count in enumerate(counts)})
        end_attempt(store, key, group="g")
    assert update_statistics(store, "run")
    html = make_page(store).html
    finding = squeezed(html.split('class="finding">')[1].split("</p>")[0])
    assert finding.startswith("em-tok-b has the lowest word error rate, 58.33 %")
    assert finding.endswith(", not distinguishable from source.")
    assert "best" not in squeezed(html).lower().replace("best_step", "")


def test_method_keeps_colour_across_pages(store: Store, page: str) -> None:
    fill(store, methods=("source", "em-tok-b"))
    swatches = [
        dict(re.findall(r'<tr data-method="([^"]+)">\s*<th scope="row"><span class="swatch (\w+)">', html))
        for html in (make_page(store).html, page)
    ]
    assert swatches[0]["em-tok-b"] == swatches[1]["em-tok-b"]
    assert len(set(swatches[1].values())) == len(swatches[1]) == 3


def test_built_in_methods_have_own_colours(store: Store) -> None:
    begin_run(store, "run", [("g", "d", method) for method in METHODS], utterances=1)
    for method in METHODS:
        write_shard(store, CellKey("run", "d", method), {"u": [with_errors(1)]})
        end_attempt(store, CellKey("run", "d", method), group="g")
    html = make_page(store).html
    swatches = dict(re.findall(r'<tr data-method="([^"]+)">\s*<th scope="row"><span class="swatch s(\w+)">', html))
    assert swatches.keys() == METHODS.keys()
    assert len(set(swatches.values())) == len(METHODS)
    assert all(f"--{hue}:" in html for hue in swatches.values())


def test_outdated_statistics_are_hidden(store: Store) -> None:
    fill(store)
    assert update_statistics(store, "run")
    assert "95 % intervals" in make_page(store, "run").html
    for (group, domain), methods in ERRORS.items():
        for method in methods:
            write_shard(store, CellKey("run", domain, method), {"u0": [REFERENCE, with_errors(2)]}, attempt=2)
            end_attempt(store, CellKey("run", domain, method), group=group, attempt=2)
    text = squeezed(make_page(store, "run").html)
    assert "95 % intervals" not in text
    assert "No intervals or tests were computed" in text


def test_word_differences_are_classified() -> None:
    assert word_differences("one two three four five", "one too four five six") == (
        Piece("same", "one", ""),
        Piece("substituted", "two", "too"),
        Piece("missing", "three", ""),
        Piece("same", "four five", ""),
        Piece("added", "", "six"),
    )
    assert word_differences("red", "") == (Piece("missing", "red", ""),)


def test_most_changed_utterances_are_shown(page: str) -> None:
    best = page.split('class="examples" data-panel="em-tok-b"')[1].split('class="examples"')[0]
    improved, worsened = best.split("Worsened")
    assert "4 → 0 of 4 words wrong" in improved.split("</li>")[0]
    assert "<dd><del>red green blue river</del> <ins>wrong wrong wrong wrong</ins></dd>" in improved.split("</li>")[0]
    assert f"<dd>{REFERENCE}</dd>" in improved.split("</li>")[0]
    assert "0 → 2 of 4 words wrong" in worsened
    assert worsened.count("<li ") == 1


def test_values_are_text_never_markup(store: Store) -> None:
    begin_run(store, "run", [("g", "d", "source"), ("g", "d", "em-tok-b"), ("g", "e", "em-tok-b")])
    store.write_run("run", replace(store.run("run"), suite=EVIL, suite_toml=EVIL, model=EVIL, host=EVIL, versions=EVIL))
    for method in ("source", "em-tok-b"):
        states = {f"u{EVIL}": [EVIL, REFERENCE if method == "em-tok-b" else EVIL], "v": None}
        write_shard(store, CellKey("run", "d", method), states, reference=EVIL, speaker=EVIL)
    end_attempt(store, CellKey("run", "e", "em-tok-b"), group="g", error=EVIL)
    html = make_page(store, "run").html
    page = Reader(html)
    tags = [tag for tag, _ in page.elements]
    assert tags.count("script") == tags.count("style") == 1
    assert "img" not in tags
    attributes = {name for _, attributes in page.elements for name in attributes}
    assert not [name for name in attributes if name.startswith("on") or name == "style"]
    assert page.text.count(escaped(EVIL)) >= 6  # suite, its file, model, host, versions, and why the cell failed
    assert "<script>alert" not in html
    assert not {"\x9b", "\u202e"} & set(html)


def test_page_is_self_contained(page: str) -> None:
    read = Reader(page)
    addresses = [value for _, found in read.elements for name, value in found.items() if name in ("src", "href")]
    assert all(address and address.startswith(("#", "data:")) for address in addresses)
    (policy,) = [found["content"] for tag, found in read.elements if found.get("http-equiv")]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert {tag for tag, _ in read.carried} == {"script", "style"}
    for tag, text in read.carried:
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_run_without_results_renders(store: Store) -> None:
    begin_run(store, "run", [("g", "d", "source"), ("g", "d", "em-tok-b")])
    text = squeezed(make_page(store).html)
    assert "Nothing is done yet: 2 cells planned." in text
    assert "2 of 2 cells are incomplete" in text
    assert text.count("incomplete") >= 4


def test_run_without_cells_renders(store: Store) -> None:
    begin_run(store, "run", [])
    assert "The plan of this run has no cells." in squeezed(make_page(store).html)


def test_partial_run_hides_means(store: Store) -> None:
    fill(store, left_out=[("babble", "source"), ("babble", "greedy-em"), ("scotland", "em-tok-b")])
    html = make_page(store).html
    text = squeezed(html)
    assert "No method has completed all of its domains yet" in text
    assert "3 of 9 cells are incomplete" in text
    assert "1 of 3 domains incomplete: babble (0 of 3 utterances)" in text
    assert 'id="heat-title"' in html
    assert 'id="speed-title"' not in html
    assert html.count("<td>missing</td>") + html.count('class="worse">missing</td>') == 6  # of cells and of failures


def test_no_source_still_shows_utterances(store: Store) -> None:
    fill(store, methods=("em-tok-b",))
    html = make_page(store).html
    text = squeezed(html)
    assert "em-tok-b has a word error rate of 27.78 % averaged over 3 domains." in text
    assert "The run does not include the method source" in text
    assert "4 → 0 of 4 words wrong" in text


def test_source_only_run_is_not_compared(store: Store) -> None:
    fill(store, methods=("source",))
    text = squeezed(make_page(store).html)
    assert "source has a word error rate of 44.44 % averaged over 3 domains." in text
    assert "No utterance has more or fewer errors after adaptation than before." in text


def test_excess_failures_are_counted(store: Store) -> None:
    count = MAX_FAILURES + 30
    begin_run(store, "run", [("g", "d", "source")], utterances=count + 1)
    write_shard(store, CellKey("run", "d", "source"), {"u": [REFERENCE], **{f"bad{i:04d}": None for i in range(count)}})
    text = squeezed(make_page(store).html)
    assert f"{count} of {count + 1} utterances are in error and excluded from every rate" in text
    assert f"the first {MAX_FAILURES} of {count + 1}" in text, "the last one says what they do to the rate"
    assert text.count("the waveform is silent") == MAX_FAILURES


def test_huge_charts_are_limited(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    most = 4
    monkeypatch.setattr(charts, "MAX_DOMAINS", most)
    domains = [f"d{number:03d}" for number in range(most + 5)]
    begin_run(store, "run", [("g", domain, method) for domain in domains for method in ("source", "em-tok-b")])
    for index, domain in enumerate(domains):
        for method in ("source", "em-tok-b"):
            errors = 1 if method == "source" or index < 5 else 2
            write_shard(
                store, CellKey("run", domain, method), {"a": [with_errors(1), with_errors(errors)], "b": [REFERENCE]}
            )
    html = make_page(store).html
    assert f"Shown are the {most} of {len(domains)} domains that changed most" in squeezed(html)
    heat = html.split('id="heat-title"')[1].split("</svg>")[0]
    assert [domain for domain in domains if f">{domain}<" not in heat] == domains[:5]
    assert all(f">{domain}</th>" in html for domain in domains)


def test_missing_run_lists_existing(store: Store, complete: Store) -> None:
    with pytest.raises(UsageError, match="has no run yet; this makes one: emtta run smoke --store"):
        make_page(store)
    with pytest.raises(UsageError, match="unknown run 'nun'; choose from: run"):
        make_page(complete, "nun")


@pytest.fixture(scope="module")
def spoken_page(complete: Store) -> Page:
    """The page on `complete` with two recordings."""
    return make_page(complete, "run", audio=2)


def test_page_includes_requested_recordings(spoken_page: Page, page: str) -> None:
    held = [found["src"] for tag, found in Reader(spoken_page.html).elements if tag == "audio"]
    assert spoken_page.recordings == 2
    assert len(set(held)) == 2  # several methods may show the same recording
    prefix = "data:audio/flac;base64,"
    assert all(base64.b64decode((address or "").removeprefix(prefix)) in FLAC.values() for address in held)
    assert "audio" not in {tag for tag, _ in Reader(page).elements}


def test_recording_plays_prepared_samples(spoken_page: Page) -> None:
    flac = base64.b64decode(spoken_page.html.split("data:audio/flac;base64,")[1].split('"')[0])
    samples, rate = soundfile.read(io.BytesIO(flac))
    assert rate == 16_000
    assert np.abs(samples).max() > 0.1
    assert len(samples) == 3_200


def test_missing_recordings_are_harmless(store: Store) -> None:
    fill(store)
    made = make_page(store, "run", audio=5)
    assert made.recordings == 0
    with pytest.raises(UsageError, match="-1 recordings cannot be put into a page"):
        make_page(store, "run", audio=-1)


def test_command_writes_page(complete: Store, emtta: Command, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    ended = emtta("report", "html", "--store", complete.location, "--run", "run", "--out", path)
    assert ended.code == 0
    assert str(path) in ended.err.replace("\n", "")
    assert path.read_text("utf-8").startswith("<!doctype html>")


def test_unwritable_file_is_refused(complete: Store, emtta: Command, tmp_path: Path) -> None:
    ended = emtta("report", "html", "--store", complete.location, "--out", tmp_path / "no" / "page.html")
    assert ended.code == 2
    assert f"there is no folder {tmp_path / 'no'}; create it, or name another file with --out" in ended.err.replace(
        "\n", " "
    )


@pytest.mark.parametrize("options", [("--format", "json"), ("--param", "group=noise")])
def test_table_options_are_refused(complete: Store, emtta: Command, options: tuple[str, str]) -> None:
    ended = emtta("report", "html", "--store", complete.location, *options)
    assert ended.code == 2
    assert "its options are --run, --scorer, --out, --audio" in ended.err.replace("\n", " ")
    ended = emtta("report", "html", "--store", complete.location, "--out", "page.csv")
    assert (ended.code, "--out page.csv is not the name of a page" in ended.err) == (2, True)
    assert emtta("report", "leaderboard", "--store", complete.location, "--audio", 3).code == 2


@pytest.mark.slow
def test_demo_page_is_small_and_fast(store: Store) -> None:
    methods = ("source", "greedy-em", "em-seq", "em-tok", "em-tok-b")
    cells = [(f"group-{domain % 3}", f"domain-{domain}", method) for domain in range(23) for method in methods]
    begin_run(store, "run", cells, utterances=12)
    for index, (group, domain, method) in enumerate(cells):
        errors = {f"u{number:02d}": (number + index) % 5 for number in range(12)}
        states = {name: [with_errors(2), *[with_errors(last)] * 10] for name, last in errors.items()}
        write_shard(store, CellKey("run", domain, method), states)
        end_attempt(store, CellKey("run", domain, method), group=group)
    assert update_statistics(store, "run")
    start = time.process_time()
    html = make_page(store, "run").html
    assert time.process_time() - start < 5, "processor seconds, which a busy machine does not increase"
    assert html.count("<svg") >= 11
    assert len(html.encode()) < 1_000_000, "a third of what it may be: recordings come on top"


def test_charts_are_valid_vega_lite(complete: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[charts.Chart] = []
    draw = Painter.draw
    monkeypatch.setattr(Painter, "draw", lambda self, made: drawn.extend(made) or draw(self, made))
    make_page(complete, "run")
    assert len(drawn) >= 6
    for chart in drawn:
        validate_jsonschema(chart.spec, alt.load_schema())


def test_failed_chart_leaves_no_process() -> None:
    broken = charts.Chart("x", "title", "description", {"mark": {"type": "no-such-mark"}, "data": 3})
    with Painter() as painter:
        drawing = painter.draw([broken])
        with pytest.raises(EmttaError, match=r"the charts of the page cannot be drawn: \S"):
            drawing.result()
    assert painter._process.returncode
