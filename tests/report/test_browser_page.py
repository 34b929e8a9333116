"""The page on a run works in a browser: on screens and phones, by keyboard, and in print, without network access."""

from collections.abc import Iterator
from importlib import resources
from itertools import pairwise
from pathlib import Path

import pytest
from browser import Seen, chromium, kept, opened
from playwright.sync_api import Browser
from report_factory import fill
from store_factory import begin_run, write_shard

from emtta_core.pipeline.run_statistics import update_statistics
from emtta_core.pipeline.selection import choose_domains
from emtta_core.report import make_page
from emtta_core.report.facts import NO_VALUE
from emtta_core.report.listening_page import make_listening_page
from emtta_core.store import CellKey, Store
from emtta_core.suite import load_suite

AA, AA_LARGE = 4.5, 24.0  # WCAG 2.2: the contrast of text, and the size in pixels from which 3 is enough


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a run with intervals, three domains, three methods, an utterance in error, and an incomplete cell."""
    folder = tmp_path_factory.mktemp("page")
    store = Store.open(folder / "store", create=True)
    fill(store, left_out=[("scotland", "greedy-em")])
    write_shard(store, CellKey("run", "scotland", "greedy-em"), {"u0": None})
    assert update_statistics(store, "run")
    path = folder / "run.html"
    path.write_text(make_page(store, "run").html, encoding="utf-8")
    return path.as_uri()


def violations(seen: Seen) -> list[tuple[str, list[str]]]:
    """What axe finds against the accessibility guidelines, each with up to three elements."""
    seen.page.evaluate(resources.files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8"))
    passed, found = seen.page.evaluate("axe.run().then((result) => [result.passes.length, result.violations])")
    assert passed > 15
    return [(one["id"], [node["html"] for node in one["nodes"]][:3]) for one in found]


def column(seen: Seen, index: int) -> list[str]:
    """The visible texts of a column of the table of domains."""
    return seen.texts(f"#domains tbody tr:not([hidden]) > :nth-child({index})")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_page_logs_nothing_and_fits_window(browser: Browser, url: str, width: int, scheme: str, tmp_path: Path) -> None:
    with opened(browser, url, width=width, scheme=scheme) as seen:
        assert seen.complaints == []
        assert [address for address in seen.requests if not address.startswith("data:")] == []
        assert seen.page.evaluate("document.documentElement.scrollWidth") == width
        picture = kept(f"page-{scheme}-{width}.png", tmp_path)
        seen.page.screenshot(path=picture, full_page=True)
        assert picture.stat().st_size > 20_000


def test_nothing_reaches_network(browser: Browser, url: str) -> None:
    with opened(browser, url) as seen:
        seen.page.evaluate("""() => {
            const image = new Image();
            image.src = "http://127.0.0.1:9/pixel";
            document.body.append(image);
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.body.append(script);
            return fetch("http://127.0.0.1:9/").catch(() => null);
        }""")
        assert seen.page.evaluate("window.ran") is None
        assert len([line for line in seen.complaints if "Content Security Policy" in line]) >= 3


def test_header_click_sorts(browser: Browser, url: str) -> None:
    with opened(browser, url) as seen:
        header = seen.page.locator("#domains thead th").nth(5)
        assert header.inner_text().split() == ["WER", "%"]
        for way in ("ascending", "descending"):
            header.get_by_role("button").click()
            assert header.get_attribute("aria-sort") == way
            shown = column(seen, 6)
            assert shown[-1] == NO_VALUE  # unknown values come last both ways
            known = [float(text) for text in shown[:-1]]
            assert len(known) == 8
            assert known == sorted(known, reverse=way == "descending")
        assert seen.page.locator("#domains th[aria-sort]:not([aria-sort=none])").count() == 1


def test_keyboard_sorts(browser: Browser, url: str) -> None:
    with opened(browser, url) as seen:
        seen.page.locator("#domains thead button").nth(1).focus()
        seen.page.keyboard.press("Enter")
        names = column(seen, 2)
        assert names == sorted(names)
        assert names[0] == "babble"
        seen.page.keyboard.press("Tab")
        assert seen.page.evaluate("document.activeElement.textContent") == "method"


def test_filters_combine(browser: Browser, url: str) -> None:
    with opened(browser, url) as seen:
        page = seen.page
        assert seen.texts("figure[data-panel] figcaption b") == ["Change of WER with em-tok-b, points"]
        page.get_by_role("button", name="noise", exact=True).first.click()
        assert set(column(seen, 1)) == {"noise"}
        assert page.locator("#found").inner_text() == "6 of 9 rows"
        page.locator('[data-choice="method"]').get_by_role("button", name="greedy-em").click()
        assert column(seen, 2) == ["vacuum", "babble"]
        assert seen.texts("figure[data-panel] figcaption b") == ["Change of WER with greedy-em, points"]
        assert seen.texts("h3")[0].startswith("greedy-em")
        faded = page.locator("svg .dim")
        assert faded.count() > 0
        assert faded.evaluate_all(
            "all => all.every((one) => one.dataset.method !== 'greedy-em' || one.dataset.group === 'accent')"
        )
        page.locator("#find").fill("BABB")
        assert column(seen, 2) == ["babble"]
        page.locator("#find").fill("")
        for choice in ("group", "method"):
            page.locator(f'[data-choice="{choice}"]').get_by_role("button", name="all").click()
        assert len(column(seen, 2)) == 9
        assert page.locator("#found").inner_text() == ""
        assert seen.complaints == []


def test_theme_follows_system_by_default(browser: Browser, url: str) -> None:
    def background(seen: Seen) -> str:
        return str(seen.page.evaluate("getComputedStyle(document.body).backgroundColor"))

    with opened(browser, url) as light, opened(browser, url, scheme="dark") as dark:
        assert background(light) != background(dark)
        button = light.page.get_by_role("button", name="Theme")
        assert button.inner_text() == "Theme: system"
        found = []
        for name in ("light", "dark", "system"):
            button.click()
            assert button.inner_text() == f"Theme: {name}"
            found.append(background(light))
            light.page.reload()
            assert background(light) == found[-1]
        assert found == [background(light), background(dark), background(light)]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_contrast_suffices(browser: Browser, url: str, scheme: str) -> None:
    with opened(browser, url, scheme=scheme) as seen:
        seen.page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        texts = seen.contrasts()
        assert len(texts) > 200
        assert [row for row in texts if row[0] < (3 if row[1] >= AA_LARGE else AA)] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_heat_map_numbers_are_readable(browser: Browser, url: str, scheme: str) -> None:
    with opened(browser, url, scheme=scheme) as seen:
        seen.page.evaluate("""() => {
            for (let level = -3; level <= 3; level++) {
                const cell = document.createElement("p");
                cell.className = `h${level}`;
                cell.textContent = `level ${level}`;
                document.body.append(cell);
            }
        }""")
        found = [row for row in seen.contrasts() if row[2].startswith("level ")]
        assert len(found) == 7
        assert min(row[0] for row in found) >= AA


def test_headings_and_charts_are_labelled(browser: Browser, url: str) -> None:
    with opened(browser, url) as seen:
        levels = seen.page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map((one) => +one.tagName[1])")
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))
        names = seen.page.evaluate("""[...document.querySelectorAll("svg")].map((one) =>
            one.getAttribute("aria-labelledby").split(" ").map((id) => document.getElementById(id).textContent))""")
        assert len(names) == 9  # three leaderboards, the heat map, changes of two methods, two of steps, speed
        assert len({title for title, _ in names}) == 9
        assert all(description for _, description in names)
        assert seen.page.locator("figure:has(details table)").count() == 3  # the figures of others are the two tables


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_axe_finds_no_violations(browser: Browser, url: str, width: int, scheme: str) -> None:
    with opened(browser, url, width=width, scheme=scheme) as seen:
        seen.page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert violations(seen) == []


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_listening_page_logs_nothing_and_plays(browser: Browser, width: int, scheme: str, tmp_path: Path) -> None:
    robustness = load_suite("robustness")
    path = tmp_path / "listen.html"
    domains = choose_domains(robustness, ["group=gain", "group=g711"])
    path.write_text(make_listening_page(robustness, domains, 1), encoding="utf-8")
    with opened(browser, path.as_uri(), width=width, scheme=scheme) as seen:
        assert seen.complaints == []
        assert seen.page.evaluate("document.documentElement.scrollWidth") == width
        assert violations(seen) == []
        seen.page.get_by_role("link", name="g711").click()
        assert seen.page.get_by_role("heading", name="g711").is_visible()
        seconds = seen.page.locator("audio").first.evaluate("""(one) => new Promise((done) => {
            one.ondurationchange = () => done(one.duration);
            one.preload = "metadata";
        })""")
        assert seconds > 1


def test_print_is_light_with_all_rows(browser: Browser, url: str, tmp_path: Path) -> None:
    with opened(browser, url, scheme="dark") as seen:
        seen.page.emulate_media(media="print", color_scheme="dark")
        assert not seen.page.locator("#filter").is_visible()
        assert not seen.page.get_by_role("button", name="Theme").is_visible()
        assert seen.page.evaluate("getComputedStyle(document.body).color") == "rgb(26, 28, 32)"
        held = seen.page.locator(".scroll.tall").first
        assert held.evaluate("(one) => one.scrollHeight <= one.clientHeight")
        seen.page.set_viewport_size({"width": 688, "height": 1000})  # A4 between its margins
        assert held.evaluate("(one) => one.scrollWidth <= one.clientWidth")
        path = kept("page.pdf", tmp_path)
        seen.page.pdf(path=path, format="A4")
        assert path.read_bytes().startswith(b"%PDF")
        assert path.stat().st_size > 20_000


def test_empty_run_logs_nothing(browser: Browser, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store", create=True)
    begin_run(store, "run", [("g", "d", "source"), ("g", "d", "em-tok-b")])
    path = tmp_path / "run.html"
    path.write_text(make_page(store, "run").html, encoding="utf-8")
    with opened(browser, path.as_uri()) as seen:
        seen.page.locator('[data-choice="method"]').get_by_role("button", name="source").click()
        assert seen.complaints == []
        assert column(seen, 4) == ["missing"]
