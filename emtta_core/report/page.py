"""The report page of a run: one self-contained HTML file.

Its security policy forbids all requests, and all scripts and styles except its own two, identified by hash; the
template engine escapes all values. Charts are drawn in advance and contain no script.
"""

import base64
import hashlib
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.metadata import version
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from emtta_core.errors import UsageError
from emtta_core.report import charts, facts
from emtta_core.report.charts import Painter
from emtta_core.report.examples import Example, Examples, audio_of, data_uri, find_examples, first_of_each
from emtta_core.report.facts import ALL, MAX_FAILURES, SOURCE, Facts, newest_run, read_facts
from emtta_core.report.summary import lowest_of, summarise, tally
from emtta_core.sanitize import escaped
from emtta_core.store import Catalogue, Store
from emtta_core.store.describe import check_scored
from emtta_core.store.queries import Limits

MAX_ROWS = 3000
"""The most rows of a page's table of domains and methods."""

MAX_GROUPS = 12
"""The most groups with a leaderboard chart; the table has them all."""

AudioAddress = Callable[[Example], str]
"""The URL template for the recording of an utterance on a server."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page."""

    run_id: str  # the run
    html: str  # the whole file
    recordings: int  # how many recordings are in it


def make_page(
    store: Store,
    run_id: str | None = None,
    *,
    audio: int = 0,
    audio_address: AudioAddress | None = None,
    scorer: str | None = None,
    limits: Limits | None = None,
) -> Page:
    """Make the report page of a run.

    Args:
        store: the run's store.
        run_id: the run; the newest by default.
        audio: number of recordings to embed, of the utterances that changed most; 50 to 250 kB each.
        audio_address: for a page shown by a server, the URL template of its recordings; the page then embeds none.
        scorer: the scorer of the figures; by default the first of the suite.
        limits: the limits of each query.

    Raises:
        UsageError: the store lacks the run, has no runs, or has no scores of the run by the scorer; or `audio` is
            below 0.
        StoreError: the record of the run, or requested prepared audio, is broken.
    """
    if audio < 0:
        raise UsageError(f"{audio} recordings cannot be put into a page; give 0 or more")
    run_id = newest_run(store) if run_id is None else run_id
    store.run(run_id)  # refuses an unknown run before looking for its files
    # A separate process draws the charts while the remaining queries run, which take about as long.
    with Painter() as painter:
        with Catalogue(store, runs=[run_id], scorer=scorer, limits=limits) as catalogue:
            catalogue.cache_rows()
            check_scored(catalogue, run_id, scorer)
            facts = read_facts(catalogue, run_id)
            lowest = lowest_of(facts)
            # Lowest WER first, as readers look at the first chart and the first example.
            methods = sorted(facts.adapting, key=lambda method: method != lowest)
            drawn = [chart for chart in _charts(facts, methods) if chart is not None]
            drawing = painter.draw(drawn)
            examples = find_examples(catalogue, run_id, methods)
            left_out = len(catalogue.broken)
        sounds = _sounds(store, examples, audio, audio_address)
        template = _environment().get_template("page.html")
        pictures = [Markup(svg) for svg in drawing.result()]
    html = template.render(
        **_frame(served=audio_address is not None),
        run=facts.run,
        facts=facts,
        resume=store.command("rerun", run_id),
        methods=methods,
        summary=summarise(facts),
        lowest=lowest,
        tally=tally(facts, lowest) if lowest else None,
        examples=examples,
        sounds=sounds,
        left_out=left_out,
        pictures=dict(zip([chart.name for chart in drawn], pictures, strict=True)),
        rows=list(facts.cells.values())[:MAX_ROWS],
        failures=facts.failures[:MAX_FAILURES],
        shown=len(charts.shown_domains(facts)),
    )
    return Page(run_id, html, len(set(sounds)) if audio_address is None else 0)


def render(name: str, *, served: bool = True, **values: Any) -> str:
    """Make another page from the template of that name, for a server or as a self-contained file."""
    return _environment().get_template(name).render(**_frame(served=served), **values)


def policy(*, served: bool) -> str:
    """The page's Content-Security-Policy: nothing may be fetched except recordings from the page's own server."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash(_asset('page.js'))}",
            f"style-src {_hash(_asset('page.css'))}",
            "media-src 'self'" if served else "media-src data:",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _frame(*, served: bool) -> dict[str, Any]:
    return {
        "policy": policy(served=served),
        "style": Markup(_asset("page.css")),
        "script": Markup(_asset("page.js")),
        "served": served,
        "version": version("emtta"),
    }


def _charts(facts: Facts, methods: Sequence[str]) -> Iterator[charts.Chart | None]:
    # The charts of a page; None for one without figures.
    yield charts.heat_map(facts)
    yield charts.by_step(facts, "wer")
    yield charts.by_step(facts, "entropy")
    yield charts.speed(facts)
    for group in (ALL, *(facts.groups if len(facts.groups) > 1 else ()))[:MAX_GROUPS]:
        yield charts.leaderboard(facts, group)
    for method in methods:
        yield charts.change_by_domain(facts, method)


def _sounds(
    store: Store, examples: tuple[Examples, ...], audio: int, address: AudioAddress | None
) -> dict[tuple[str, str], str]:
    if address is not None:
        every = [one for of_method in examples for one in (*of_method.improved, *of_method.worsened)]
        return {one.key: address(one) for one in every}
    chosen = first_of_each(examples, audio)
    return {key: data_uri(flac) for key, flac in audio_of(store, [one.key for one in chosen]).items()}


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_asset),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_readable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(ALL=ALL, SOURCE=SOURCE)
    environment.filters.update(
        rate=facts.rate,
        points=facts.points,
        percent=facts.signed_percent,
        probability=facts.probability,
        number=facts.count,
        duration=facts.duration,
        verdict=facts.verdict,
        shell=shlex.quote,
    )
    environment.globals.update(interval=facts.interval)
    return environment


def _readable(value: object) -> object:
    return escaped(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def _asset(name: str) -> str:
    return (resources.files("emtta_core.report") / "templates" / name).read_text("utf-8")


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
    return f"'sha256-{digest}'"
