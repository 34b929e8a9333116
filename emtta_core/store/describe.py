"""Descriptions of views, tables and reports, column by column, and the notices that accompany a run's figures."""

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import duckdb
import pyarrow as pa

from emtta_core.errors import UsageError, unknown
from emtta_core.scoring.normalizer import MARKED
from emtta_core.store.catalogue import Catalogue
from emtta_core.store.reports import EVERY, report, reports, views
from emtta_core.store.result import Result
from emtta_core.store.tables import TABLES, Table

_KEYS: Mapping[str, str] = MappingProxyType(
    {
        "run_id": "the run, from the path",
        "domain": "the domain, from the path",
        "method": "the method, from the path",
        "seed": "the seed of the method's random numbers, from the path; null if it draws none",
        "source_run": "the run whose results are reused, from the path",
        "corpus_id": "identity of the corpus, from the path",
    }
)

_COLUMNS = ("column", "type", "meaning")


def meanings(table: Table) -> Mapping[str, str]:
    """The meaning of each column of a table, including those in the path."""
    keys = table.keys or ("corpus_id",)
    return {
        **{key: _KEYS[key] for key in keys},
        **{field.name: field.metadata[b"doc"].decode() for field in table.schema},
    }


def describe(catalogue: Catalogue, name: str) -> Result:
    """The columns of a view, or of `raw.<table>`: `column`, `type` and `meaning`.

    Raises:
        UsageError: there is none of this name; the message lists the valid names.
    """
    tables = {f"raw.{table.name}": table for table in TABLES.values()}
    if name in views():
        meaning, source = views()[name].columns, f'"{name}"'
    elif name in tables:
        meaning, source = meanings(tables[name]), name
    else:
        raise unknown("view or table", name, [*views(), *tables])
    found = catalogue.query(f"DESCRIBE SELECT * FROM {source}").rows
    return text_table(_COLUMNS, [(str(row[0]), str(row[1]), meaning.get(str(row[0]), "")) for row in found])


def describe_report(catalogue: Catalogue, name: str) -> Result:
    """The columns of a report on a store, as `describe` returns them.

    Raises:
        UsageError: there is no such report; the message lists the valid names.
    """
    chosen = report(name)
    with duckdb.connect(":memory:") as connection:
        found = connection.from_arrow(catalogue.report(name).table)
        columns = zip(found.columns, map(str, found.types), strict=True)
        return text_table(_COLUMNS, [(column, kind, chosen.columns.get(column, "")) for column, kind in columns])


def report_list() -> Result:
    """All reports: `report`, what it `shows`, and its `parameters`."""
    rows = [
        (
            chosen.name,
            chosen.summary.removesuffix("."),
            ", ".join(name for name in chosen.parameters if name != "run_id"),
        )
        for chosen in reports().values()
    ]
    return text_table(("report", "shows", "parameters"), rows)


def view_list() -> Result:
    """All views: `view`, what it `shows`, and its `grain`."""
    rows = [(view.name, view.summary.removesuffix("."), view.grain.removesuffix(".")) for view in views().values()]
    return text_table(("view", "shows", "grain"), rows)


def text_table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> Result:
    """A result of text rows with these column names; undecodable bytes of file names become �."""
    plain = [[text.encode(errors="surrogateescape").decode(errors="replace") for text in row] for row in rows]
    columns = {name: pa.array([row[index] for row in plain], pa.string()) for index, name in enumerate(names)}
    return Result(pa.table(columns))


_UNSCORED = """
    SELECT run_id, count(*) FILTER (words IS NULL AND error IS NULL), count(*) FILTER (words IS NOT NULL)
    FROM utterances
    WHERE run_id = $run
    GROUP BY run_id
"""


def check_scored(catalogue: Catalogue, run_id: str | None, scorer: str | None) -> None:
    """Check that a run, the newest by default, has scores by the requested scorer.

    Raises:
        UsageError: it has none; the message names its scorers, and the command that scores it.
    """
    rows = catalogue.query(f"SELECT run_id {_CHOSEN}", {"run": run_id}).rows
    if scorer is None or not rows:
        return
    found = catalogue.query(_UNSCORED, {"run": rows[0][0]}).rows
    if found and found[0][1] and not found[0][2]:
        known = ", ".join(scorers_of(catalogue, found[0][0]))
        command = catalogue.store.command("score", found[0][0], "--scorer", scorer)
        raise UsageError(
            f"the run {found[0][0]!r} is not scored by {scorer!r}, only by {known}. Score it with: {command}"
        )


def scorer_of(catalogue: Catalogue, run_id: str) -> str | None:
    """The scorer of a run's figures; None without a readable plan."""
    rows = catalogue.query("SELECT scorer FROM planned WHERE run_id = $run LIMIT 1", {"run": run_id}).rows
    return str(rows[0][0]) if rows else None


def scorers_of(catalogue: Catalogue, run_id: str) -> tuple[str, ...]:
    """The scorers that scored utterances of a run, in alphabetical order."""
    return tuple(str(name) for (name,) in catalogue.query(_SCORERS, {"run": run_id}).rows)


_SCORERS = """
    SELECT scorer FROM raw.scores WHERE run_id = $run
    UNION
    SELECT scorer FROM raw.rescores WHERE run_id = $run
    ORDER BY ALL
"""

_NOTICES = {
    re.compile(r'snr_convention = "msnsd-old"'): (
        "Noise is mixed by the SNR convention msnsd-old, the published mistake: 10 dB by name are 5 dB in truth; "
        "compare it with figures of that convention alone."
    ),
    re.compile(r'corpus = \{ name = "synthetic"'): (
        "The speech is synthetic: these figures say how the methods compare here, not how they do on real speech."
    ),
}
"""Required notices, each by the pattern in a suite's text that calls for it."""

_CUT_WORDS = (
    "Whisper's basic normalizer removes vowel signs, and so cuts words of Hindi, Bengali, Thai and others into "
    'pieces: WER counts these, and neither WER nor CER sees the vowels; score them by "marks", as with emtta score.'
)

_CHOSEN = "FROM raw.runs WHERE run_id = $run OR $run IS NULL ORDER BY created_at DESC, run_id DESC LIMIT 1"
_RECORD = f"SELECT run_id, suite, model, strftime(created_at, '%Y-%m-%d %H:%M') {_CHOSEN}"


_REUSED = """
    SELECT links.source_run, count(*) AS utterances
    FROM utterances
    INNER JOIN raw.links AS links USING (run_id, domain, method, cell_id, utterance_id)
    WHERE run_id = $run AND utterances.attempt = 0 AND links.source_run <> run_id
    GROUP BY links.source_run
    ORDER BY utterances DESC, links.source_run
"""

_SCORED = """
    SELECT DISTINCT language, normalizer
    FROM utterances
    WHERE run_id = $run AND error IS NULL AND normalizer IS NOT NULL
"""


def notices_of(catalogue: Catalogue, run_id: str | None) -> tuple[str, ...]:
    """The notices required in a report on a run, the newest if `run_id` is None; empty if there is no such run."""
    rows = catalogue.query(f"SELECT run_id, suite_toml {_CHOSEN}", {"run": run_id}).rows
    if not rows:
        return ()
    found, suite_toml = rows[0]
    scored = catalogue.query(_SCORED, {"run": found}).rows
    cut = any(language in MARKED and normalizer.startswith("whisper-basic") for language, normalizer in scored)
    sentences = [sentence for sign, sentence in _NOTICES.items() if sign.search(suite_toml)]
    if cut:
        sentences.append(_CUT_WORDS)
    reused = catalogue.query(_REUSED, {"run": found}).rows
    if reused:
        named = ", ".join(f"{count:,} of {run}" for run, count in reused)
        sentences.append(f"Results of other runs that did the same work are reused: {named} (utterances, per method).")
    return tuple(sentences)


_NEWEST = f"SELECT run_id {_CHOSEN}"

_NOTES = f"""
    SELECT note, list(DISTINCT coalesce(domain, "group" || ' (mean)') ORDER BY coalesce(domain, "group" || ' (mean)'))
    FROM statistics
    WHERE run_id = ({_NEWEST}) AND note IS NOT NULL
    GROUP BY note
    ORDER BY note
"""

_VERDICTS = f'SELECT "group", verdict FROM best WHERE run_id = ({_NEWEST}) ORDER BY "group" <> $all, "group"'

_MAX_LISTED = 4
"""The most domains that a sentence names."""


def cautions_of(catalogue: Catalogue, run_id: str | None) -> tuple[str, ...]:
    """What the intervals of a run (the newest by default) do not cover, and in which domains; one sentence each."""
    found = []
    for note, names in catalogue.query(_NOTES, {"run": run_id}).rows:
        more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
        found.append(f"{note} ({', '.join(names[:_MAX_LISTED])}{more})")
    return tuple(found)


def verdicts_of(catalogue: Catalogue, run_id: str | None) -> tuple[str, ...]:
    """The best method of each group of a run (the newest by default), such as `all: best: em-tok-b`."""
    found = catalogue.query(_VERDICTS, {"run": run_id, "all": EVERY}).rows
    return tuple(f"{group}: {verdict}" for group, verdict in found)


def heading(catalogue: Catalogue, run_id: str | None) -> str:
    """The heading of a report on a run (the newest if None): run, suite, model, date, scorer; empty without a run."""
    rows = catalogue.query(_RECORD, {"run": run_id}).rows
    if not rows:
        return ""
    run, suite, model, created_at = rows[0]
    scorer = scorer_of(catalogue, run)
    by = f", scorer {scorer}" if scorer else ""
    return f"run {run} (suite {suite}, model {model}, {created_at} UTC{by})"
