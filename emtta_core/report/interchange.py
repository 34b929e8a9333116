"""Export a run for other programs: one format at a time, into a folder, all files or none.

The export for the hub is a data set: https://huggingface.co/docs/hub/datasets-cards and
https://huggingface.co/docs/hub/eval-results
"""

import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Any

from huggingface_hub.utils import HFValidationError, validate_repo_id, yaml_dump

from emtta_core.errors import EmttaError, UsageError, unknown
from emtta_core.pipeline.run_results import RESULTS, results_of, results_text
from emtta_core.report.transcripts import ChosenCell, Transcripts
from emtta_core.store import Catalogue, Store
from emtta_core.store.describe import check_scored, heading, notices_of
from emtta_core.store.queries import Limits
from emtta_core.store.reports import EVERY, views
from emtta_core.store.result import Result, SharedCell


class ExportFormat(StrEnum):
    """The export formats of a run."""

    TRN = "trn"
    CTM = "ctm"
    NEMO = "nemo"
    OPEN_ASR = "open-asr"
    CSV = "csv"
    PARQUET = "parquet"
    LATEX = "latex"
    RESULTS = "results-json"
    HUB = "hub"


_OF_UTTERANCES = frozenset(
    (
        *(ExportFormat.TRN, ExportFormat.CTM, ExportFormat.NEMO, ExportFormat.OPEN_ASR),
        *(ExportFormat.CSV, ExportFormat.PARQUET),
    )
)
"""The formats for which methods and domains can be chosen; the others hold figures of the whole run."""

_UTTERANCES = """
    SELECT utterances.* FROM utterances
    INNER JOIN planned USING (run_id, domain, method, cell_id)
    WHERE run_id = $run AND list_contains($methods, method) AND list_contains($domains, domain)
    ORDER BY planned.position, utterance_id
"""

_LEADERBOARD = (
    SharedCell("WER, % (95% interval)", "{wer:.2f} ({wer_low:.1f}\N{EN DASH}{wer_high:.1f})"),
    SharedCell("change, points", "{change:+.2f} ± {ci_half_width:.1f}"),
)
_LEADERBOARD_COLUMNS = ("method", "group", "wer", "wer_low", "wer_high", "change", "ci_half_width", "p")


@dataclass(frozen=True, slots=True)
class ExportResult:
    """The outcome of an export."""

    folder: Path  # the folder
    files: tuple[str, ...]  # the names of the files in it
    size: int  # the size of the files in bytes
    remarks: tuple[str, ...]  # what they leave out, one sentence each


def export_run(
    store: Store,
    run_id: str,
    form: str,
    folder: Path,
    *,
    methods: Sequence[str] = (),
    domains: Sequence[str] = (),
    scorer: str | None = None,
    hub_id: str | None = None,
    replace: bool = False,
    limits: Limits | None = None,
) -> ExportResult:
    """Export a run, or some of its methods and domains, in one format.

    Args:
        store: the run's store.
        run_id: the run.
        form: the format, one of `ExportFormat`.
        folder: the output folder; created if missing, and left untouched until all files are ready.
        methods: the methods to export, for formats with utterances; all by default.
        domains: the domains to export, likewise.
        scorer: the scorer of the scores; by default the first of the run's suite.
        hub_id: the id of the data set, only for the hub.
        replace: whether to replace files of the same names.
        limits: the limits of a query.

    Raises:
        UsageError: the format, the run, a method or a domain is unknown; the run has no utterances, or no scores by
            the scorer; an option does not apply to the format; the folder is a file, or has files of these names.
        StoreError: the store, or a file of the run, cannot be read.
        EmttaError: the files cannot be written.
    """
    if form not in list(ExportFormat):
        raise unknown("format", form, [known.value for known in ExportFormat])
    row, form = store.run(run_id), ExportFormat(form)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file; name a folder, which is created if missing")
    if (methods or domains) and form not in _OF_UTTERANCES:
        raise UsageError(
            f"--format {form} holds figures of the whole run; --method and --domain are for: "
            f"{', '.join(sorted(_OF_UTTERANCES))}"
        )
    if form is ExportFormat.HUB:
        _check_hub_id(hub_id)
    elif hub_id is not None:
        raise UsageError(f"--hub-id {hub_id} is only for --format hub; leave it out")
    cells = _cells(store, run_id, methods, domains)
    with Catalogue(store, runs=[run_id], scorer=scorer, limits=limits) as catalogue:
        catalogue.cache_rows()
        check_scored(catalogue, run_id, scorer)
        ((planned, done),) = catalogue.query("SELECT planned, done FROM runs WHERE run_id = $run", {"run": run_id}).rows
        finish = store.command("rerun", run_id)
        if not done:
            raise UsageError(f"the run {run_id!r} has no utterances yet; evaluate it with: {finish}")
        catalogue.check_all_read()
        transcripts = Transcripts(catalogue, run_id, row.suite, row.model, cells)
        written = _write_files(folder, _files(transcripts, form, hub_id or ""), replace=replace)
        remarks = [*transcripts.remarks(), *notices_of(catalogue, run_id)]
    if done < planned:
        remarks.insert(0, f"the run is not complete: {done} of {planned} utterances are done; finish it with: {finish}")
    return ExportResult(folder, tuple(written), sum(written.values()), tuple(remarks))


def _cells(store: Store, run_id: str, methods: Sequence[str], domains: Sequence[str]) -> list[ChosenCell]:
    # The planned cells of these methods and domains, in order; raises UsageError if one is unknown.
    plan = store.plan(run_id)
    for what, names, known in (
        ("method", methods, {row.method for row in plan}),
        ("domain", domains, {row.domain for row in plan}),
    ):
        for name in names:
            if name not in known:
                raise unknown(f"{what} of the run {run_id!r},", name, sorted(known))
    return [
        ChosenCell(row.domain, row.method, row.seed)
        for row in plan
        if (not methods or row.method in methods) and (not domains or row.domain in domains)
    ]


def _files(transcripts: Transcripts, form: ExportFormat, hub_id: str) -> Iterator[tuple[str, bytes]]:
    catalogue, run_id = transcripts.catalogue, transcripts.run_id
    match form:
        case ExportFormat.CSV:
            yield "utterances.csv", _utterances(transcripts).csv().encode()
        case ExportFormat.PARQUET:
            yield "utterances.parquet", _utterances(transcripts).parquet()
        case ExportFormat.LATEX:
            head = f"% {heading(catalogue, run_id)}\n% \\usepackage{{booktabs}}\n"
            yield "leaderboard.tex", (head + _leaderboard(catalogue, run_id).latex()).encode()
        case ExportFormat.RESULTS:
            yield RESULTS, results_text(catalogue, run_id).encode()
        case ExportFormat.HUB:
            yield from _hub_files(catalogue, run_id, hub_id, _utterances(transcripts), _leaderboard(catalogue, run_id))
        case _:
            texts = {
                ExportFormat.TRN: transcripts.trn,
                ExportFormat.CTM: transcripts.ctm,
                ExportFormat.NEMO: transcripts.nemo,
                ExportFormat.OPEN_ASR: transcripts.open_asr,
            }[form]()
            first = next(texts, None)
            if first is None:
                failures = catalogue.store.command("report", "failures", "--run", run_id)
                raise UsageError(f"no selected utterance of the run {run_id!r} counts in a WER; see why: {failures}")
            yield from ((name, text.encode()) for name, text in chain([first], texts))


def _utterances(transcripts: Transcripts) -> Result:
    methods, domains = ({getattr(cell, what) for cell in transcripts.cells} for what in ("method", "domain"))
    where = {"run": transcripts.run_id, "methods": sorted(methods), "domains": sorted(domains)}
    return transcripts.catalogue.query(_UTTERANCES, where)


def _leaderboard(catalogue: Catalogue, run_id: str) -> Result:
    found = catalogue.report("leaderboard", run_id)
    return Result(found.table.select(list(_LEADERBOARD_COLUMNS)), _LEADERBOARD)


def _write_files(folder: Path, files: Iterable[tuple[str, bytes]], *, replace: bool) -> dict[str, int]:
    # Write temporary files, and rename them when all are ready; return the size of each in bytes, by name.
    folder = folder.absolute()
    is_new = not folder.exists()
    stage = (folder.parent if is_new else folder) / f".emtta-export.{uuid.uuid4().hex[:12]}.tmp"
    written: dict[str, int] = {}
    try:
        stage.mkdir(parents=True)
        for name, content in files:
            file = stage / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            written[name] = len(content)
        existing = [name for name in written if (folder / name).exists()]
        if existing and not replace:
            more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
            raise UsageError(
                f"{folder / existing[0]}{more} already exists; name another folder with --out, or add --force"
            )
        if is_new:
            stage.rename(folder)
        else:
            for name in written:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (stage / name).replace(folder / name)
    except OSError as error:
        raise EmttaError(
            f"cannot write into {folder}: {error.strerror or error}; name another folder with --out"
        ) from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return written


_HUB_CARD = """---
{front}---

# {title}

The hypotheses of the model `{model}` in the suite `{suite}` with each method: the utterances of an evaluation of
test-time adaptation of speech recognition by entropy minimisation. The audio is not included. Made with emtta: {head}.
{notices}
**Licence.** The transcripts are those of the corpora, under the corpora's licences. Name them here, and in the field
`license` above, before you publish this.

## Word error rates

WER in %, with 95 % bootstrap intervals; the change against `source` in points; scored by `{scorer}`.

{leaderboard}
## Columns

`{file}` has one row for each utterance of a cell (a domain with a method, and a seed where the method draws random
numbers). Sum `errors` and `words` for a WER; do not average `wer`.

| column | meaning |
|---|---|
{columns}"""

_HUB_FILE = "data/utterances.parquet"
"""The file with the utterances of a data set."""


def _check_hub_id(hub_id: str | None) -> str:
    if hub_id is None:
        raise UsageError("--format hub needs an id for the data set: add --hub-id OWNER/NAME")
    try:
        validate_repo_id(hub_id)
    except HFValidationError as error:
        raise UsageError(f"--hub-id {hub_id!r} is not a hub id of the form OWNER/NAME: {error}") from error
    if "/" not in hub_id:
        raise UsageError(f"--hub-id {hub_id!r} has no owner; write OWNER/NAME")
    return hub_id


def _hub_files(
    catalogue: Catalogue, run_id: str, hub_id: str, utterances: Result, leaderboard: Result
) -> Iterator[tuple[str, bytes]]:
    found = results_of(catalogue, run_id)
    run, suite = found["run"], found["run"]["suite"]
    title = f"{suite}: hypotheses of {run['model']}"
    meanings = views()["utterances"].columns
    card = _HUB_CARD.format(
        front=yaml_dump(_front_matter(title, utterances), sort_keys=False),
        title=title,
        model=run["model"],
        suite=suite,
        head=heading(catalogue, run_id),
        notices="".join(f"\n{notice}\n" for notice in found["notices"]),
        scorer=found["scoring"]["scorer"],
        leaderboard=leaderboard.markdown(),
        file=_HUB_FILE,
        columns="".join(f"| `{name}` | {meanings.get(name, '')} |\n" for name in utterances.columns),
    )
    yield "README.md", card.encode()
    yield _HUB_FILE, utterances.parquet()
    yield f".eval_results/{suite}.yaml", yaml_dump(list(_entries(found, hub_id)), sort_keys=False).encode()


def _front_matter(title: str, utterances: Result) -> dict[str, Any]:
    return {
        "pretty_name": title,
        "language": sorted(set(utterances.table["language"].to_pylist())),
        "task_categories": ["automatic-speech-recognition"],
        "tags": ["test-time-adaptation", "word-error-rate", "emtta"],
        "configs": [{"config_name": "default", "data_files": [{"split": "test", "path": _HUB_FILE}]}],
    }


def _entries(found: dict[str, Any], hub_id: str) -> Iterator[dict[str, Any]]:
    # One for each figure that is not hidden: of a method over all domains, and for each domain. A group may have the
    # same name as one of its domains.
    over_all = [figure for figure in found["groups"] if figure["group"] == EVERY]
    for figure in [*over_all, *found["domains"]]:
        if figure["wer"] is None:
            continue
        low, high = figure["wer_low"], figure["wer_high"]
        interval = "" if low is None else f", {figure['confidence']:.0%} interval {low:.2f} to {high:.2f}"
        yield {
            "dataset": {"id": hub_id, "task_id": figure.get("domain", EVERY)},
            "value": round(figure["wer"], 4),
            "date": found["run"]["created_at"],
            "notes": f"WER in %, method {figure['method']}, scorer {found['scoring']['scorer']}{interval}",
        }
