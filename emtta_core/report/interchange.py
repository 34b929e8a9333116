"""A run written down for other programs: one format at a time, into a folder, whole or not at all."""

import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from pathlib import Path

from emtta_core.errors import EmttaError, UsageError, unknown
from emtta_core.pipeline.run_results import RESULTS, results_text
from emtta_core.report.hub_folder import check_hub_id, hub_files
from emtta_core.report.transcripts import ChosenCell, Transcripts
from emtta_core.store import Catalogue, Store
from emtta_core.store.describe import check_scored, heading, notices_of
from emtta_core.store.queries import Limits
from emtta_core.store.result import Result, SharedCell


class ExportFormat(StrEnum):
    """What a run can be written as."""

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
"""The formats of which methods and domains can be chosen; the others hold figures of the whole run."""

_UTTERANCES = """
    SELECT utterances.* FROM utterances
    INNER JOIN planned USING (run_id, domain, method, cell_id)
    WHERE run_id = $run AND list_contains($methods, method) AND list_contains($domains, domain)
    ORDER BY planned.position, utterance_id
"""

_BOARD = (
    SharedCell("WER, % (95% interval)", "{wer:.2f} ({wer_low:.1f}\N{EN DASH}{wer_high:.1f})"),
    SharedCell("change, points", "{change:+.2f} ± {ci_half_width:.1f}"),
)
_BOARD_COLUMNS = ("method", "group", "wer", "wer_low", "wer_high", "change", "ci_half_width", "p")


@dataclass(frozen=True, slots=True)
class Written:
    """What was written."""

    folder: Path  # where
    files: tuple[str, ...]  # their names below it
    size: int  # their bytes
    remarks: tuple[str, ...]  # what is not in them, a sentence each


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
) -> Written:
    """Write a run, or some of its methods and domains, in one format.

    Args:
        store: the run's.
        run_id: the run.
        form: the format, one of `ExportFormat`.
        folder: where; it is made if it is missing, and nothing in it is touched unless all is ready.
        methods: only these, for a format of utterances; all by default.
        domains: likewise.
        scorer: by whose scores; by default the first of the run's suite.
        hub_id: for the hub alone, the id that the data set is to have.
        replace: whether files of the same names are replaced.
        limits: what a query may take.

    Raises:
        UsageError: the format, the run, a method or a domain is unknown; the run has no utterance, or no score by the
            scorer; an option is not one of the format; the folder is a file, or has files of these names.
        StoreError: the store cannot be read, or a file of the run cannot.
        EmttaError: the files cannot be written.
    """
    if form not in list(ExportFormat):
        raise unknown("format", form, [known.value for known in ExportFormat])
    row, form = store.run(run_id), ExportFormat(form)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {folder} is a file; name a folder, which is made if it is missing")
    if (methods or domains) and form not in _OF_UTTERANCES:
        raise UsageError(
            f"--format {form} holds figures of the whole run; --method and --domain are for: "
            f"{', '.join(sorted(_OF_UTTERANCES))}"
        )
    if form is ExportFormat.HUB:
        check_hub_id(hub_id)
    elif hub_id is not None:
        raise UsageError(f"--hub-id {hub_id} is for --format hub alone; leave it out")
    cells = _cells(store, run_id, methods, domains)
    with Catalogue(store, run_id=run_id, scorer=scorer, limits=limits) as catalogue:
        catalogue.cache_rows()
        check_scored(catalogue, run_id, scorer)
        ((planned, done),) = catalogue.query("SELECT planned, done FROM runs WHERE run_id = $run", {"run": run_id}).rows
        finish = store.command("rerun", run_id)
        if not done:
            raise UsageError(f"the run {run_id!r} has no utterance yet; evaluate it with: {finish}")
        catalogue.check_all_read()
        transcripts = Transcripts(catalogue, run_id, row.suite, row.model, cells)
        written = _place(folder, _files(transcripts, form, hub_id or ""), replace=replace)
        remarks = [*transcripts.remarks(), *notices_of(catalogue, run_id)]
    if done < planned:
        remarks.insert(
            0, f"the run is not complete: {done} of {planned} utterances are there; finish it with: {finish}"
        )
    return Written(folder, tuple(written), sum(written.values()), tuple(remarks))


def _cells(store: Store, run_id: str, methods: Sequence[str], domains: Sequence[str]) -> list[ChosenCell]:
    # The planned cells of these methods and domains, in order; UsageError where one is unknown.
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
            yield from hub_files(catalogue, run_id, hub_id, _utterances(transcripts), _leaderboard(catalogue, run_id))
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
                raise UsageError(f"no utterance chosen of the run {run_id!r} is in a WER; see why: {failures}")
            yield from ((name, text.encode()) for name, text in chain([first], texts))


def _utterances(transcripts: Transcripts) -> Result:
    methods, domains = ({getattr(cell, what) for cell in transcripts.cells} for what in ("method", "domain"))
    where = {"run": transcripts.run_id, "methods": sorted(methods), "domains": sorted(domains)}
    return transcripts.catalogue.query(_UTTERANCES, where)


def _leaderboard(catalogue: Catalogue, run_id: str) -> Result:
    found = catalogue.report("leaderboard", run_id)
    return Result(found.table.select(list(_BOARD_COLUMNS)), _BOARD)


def _place(folder: Path, files: Iterable[tuple[str, bytes]], *, replace: bool) -> dict[str, int]:
    # Write the files beside their place and move them there when all are ready; by name, how many bytes each has.
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
        taken = [name for name in written if (folder / name).exists()]
        if taken and not replace:
            more = f" and {len(taken) - 1} more" if len(taken) > 1 else ""
            raise UsageError(
                f"{folder / taken[0]}{more} is there already; name another folder with --out, or add --force"
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
