"""The runs of a store: `emtta list`, `emtta status`, `emtta compare`, `emtta view` and `emtta export`."""

import webbrowser
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.filesize import decimal

from flows.cli._options import (
    DEFAULT_STORE,
    ColumnsOption,
    FormOption,
    MemoryOption,
    MinEffectOption,
    RunArgument,
    ScorerOption,
    StoreOption,
    TimeoutOption,
    limits,
    names,
)
from flows.cli._output import COMPLETE, INCOMPLETE, Format, echo, echo_if_empty, put, put_json, show


def runs(
    store: StoreOption = DEFAULT_STORE,
    columns: ColumnsOption = None,
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.TABLE,
    timeout: TimeoutOption = None,
    memory: MemoryOption = None,
) -> None:
    """List the runs of the store, newest first.

    Examples:
        emtta list

        emtta list --format json
    """
    from emtta_core.store import Store
    from emtta_core.store.run_list import RunList

    opened = Store.open(store)
    found = RunList(opened, limits(timeout, memory)).refresh()
    show(found, form, columns=names(columns))
    echo_if_empty(found, opened)


def status(
    run: RunArgument,
    store: StoreOption = DEFAULT_STORE,
    form: FormOption = "table",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """Show the progress of a run; the exit code is 0 if it is complete and 3 if it is not.

    Examples:
        emtta status demo-1a2b3c4d

        emtta status demo-1a2b3c4d --format json | jq .cells
    """
    from emtta_core.pipeline.state import run_status
    from emtta_core.store import Store

    found = run_status(Store.open(store), run)
    if as_json or form == "json":
        put_json(found.as_dict())
    else:
        put(f"{found.as_text()}\n")
    raise typer.Exit(COMPLETE if found.complete else INCOMPLETE)


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="The earlier run's id; see emtta list.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The later run's id.")],
    method: Annotated[list[str] | None, typer.Option("--method", help="Only this method; repeatable.")] = None,
    domain: Annotated[list[str] | None, typer.Option("--domain", help="Only this domain; repeatable.")] = None,
    fail: Annotated[bool, typer.Option("--fail-on-regression", help="Exit with 3 if a figure is worse.")] = False,
    alpha: Annotated[
        float, typer.Option("--alpha", help="Significance level: the largest p of a significant change.")
    ] = 0.05,
    min_effect: MinEffectOption = "0.2",
    scorer: ScorerOption = None,
    store: StoreOption = DEFAULT_STORE,
    columns: ColumnsOption = None,
    form: Annotated[Literal["table", "json", "markdown"], typer.Option("--format", help="Output format.")] = "table",
    timeout: TimeoutOption = None,
    memory: MemoryOption = None,
) -> None:
    """Compare two runs utterance by utterance: WER in A and B, and the difference with its 95 % interval and p.

    Interval and p are computed like the stored statistics: p tests whether the mean difference is 0, p_sign_flip
    whether the runs can be exchanged, both Holm-corrected over the domains of all methods, and over the methods' means.
    The runs must have the same speech; other differences are listed. A figure is worse (or better) if p is at most
    --alpha and the difference exceeds --min-effect; if p is above --alpha, the two runs are not distinguishable. Exit
    codes: 0, 2 for runs that cannot be compared, 3 for --fail-on-regression.

    Examples:
        emtta compare demo-2026-11-22 demo-2026-11-23

        emtta compare demo-1a2b3c4d demo-5e6f7a8b --method em-tok-b --fail-on-regression --format markdown
    """
    from emtta_core.compare import compare as compare_runs
    from emtta_core.errors import UsageError
    from emtta_core.store import Store
    from emtta_core.store.catalogue import Catalogue
    from emtta_core.store.describe import notices_of

    opened = Store.open(store)
    if columns is not None and form != "table":
        raise UsageError(f"--columns {columns} chooses columns of the table; leave out --format {form}")
    allowed = limits(timeout, memory)
    which = {"methods": method or (), "domains": domain or ()}
    found = compare_runs(opened, a, b, **which, alpha=alpha, min_effect=min_effect, scorer=scorer, limits=allowed)
    with Catalogue(opened, runs=[b], scorer=scorer, limits=allowed) as catalogue:
        notices = notices_of(catalogue, b)
    for sentence in notices:
        echo(sentence)
    if form == "json":
        put_json(found.as_dict())
    elif form == "markdown":
        put(found.markdown())
    else:
        show(found.as_result(), Format.TABLE, f"word error rate, %: A is {a}, B is {b}", columns=names(columns))
        for line in (*map(str, found.differences), *found.notes, found.summary):
            echo(line)
    if fail and found.regressions:
        raise typer.Exit(INCOMPLETE)


PORT = 8420


def view(
    store: StoreOption = DEFAULT_STORE,
    port: Annotated[int, typer.Option("--port", help="The port to listen on; 0 for any free port.")] = PORT,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the browser.")] = True,
    timeout: TimeoutOption = None,
    memory: MemoryOption = None,
) -> None:
    """Show the runs of a store in the browser, each with its page and recordings, until Ctrl-C.

    Only this machine can see them: the server listens on 127.0.0.1 and is read-only.

    Examples:
        emtta view

        emtta view --store s3://my-bucket/emtta --port 0 --no-browser
    """
    from emtta_core.report.view_server import ViewServer
    from emtta_core.store import Store

    with ViewServer(Store.open(store), port, limits(timeout, memory)) as server:
        echo(f"the runs of {store}: {server.url} (Ctrl-C to stop)")
        try:
            if browser:
                webbrowser.open(server.url)
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            echo("stopped")


MAX_LISTED_FILES = 6
"""The most files of an export that are named."""


def export(
    run: RunArgument,
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="trn, ctm, nemo, open-asr, csv, parquet, latex, results-json or hub.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder; it is created if missing.")],
    method: Annotated[
        list[str] | None,
        typer.Option("--method", metavar="NAME", help="Only this method; repeatable.", show_default=False),
    ] = None,
    domain: Annotated[
        list[str] | None,
        typer.Option("--domain", metavar="NAME", help="Only this domain; repeatable.", show_default=False),
    ] = None,
    scorer: ScorerOption = None,
    hub_id: Annotated[
        str | None,
        typer.Option("--hub-id", metavar="OWNER/NAME", help="For hub: the id of the data set."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files of the same names.")] = False,
    store: StoreOption = DEFAULT_STORE,
    timeout: TimeoutOption = None,
    memory: MemoryOption = None,
) -> None:
    """Write a run's hypotheses or figures to a folder, in a format of other tools. Nothing is uploaded.

    trn and ctm are for sclite, nemo and open-asr are JSON lines, csv and parquet have all columns of the utterances,
    latex has the leaderboard, results-json all figures, and hub a data set with its card.

    Examples:
        emtta export demo-1a2b3c4d --format trn --out sclite

        emtta export demo-1a2b3c4d --format nemo --method em-tok-b --domain BA --out manifests

        emtta export demo-1a2b3c4d --format results-json --out results
    """
    from emtta_core.report.interchange import export_run
    from emtta_core.store import Store

    done = export_run(
        Store.open(store),
        run,
        form,
        out,
        methods=method or (),
        domains=domain or (),
        scorer=scorer,
        hub_id=hub_id,
        replace=force,
        limits=limits(timeout, memory),
    )
    for remark in done.remarks:
        echo(remark)
    more = f" and {len(done.files) - MAX_LISTED_FILES} more" if len(done.files) > MAX_LISTED_FILES else ""
    echo(f"{done.folder}: {', '.join(done.files[:MAX_LISTED_FILES])}{more}; {decimal(done.size)}")
