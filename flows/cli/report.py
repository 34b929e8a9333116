"""`emtta report`: the named questions to the store."""

from typing import Annotated

import typer

from flows.cli.html import PAGE, write_page
from flows.cli.options import DEFAULT_STORE, FormatOption, OutOption, ParamOption, StoreOption, pairs
from flows.cli.output import ENDINGS, form_of, say, say_if_empty, show


def report(
    name: Annotated[
        str | None,
        typer.Argument(
            help="leaderboard, methods, groups, domains, steps, errors, hardest, oracle, speed, paper, history, …; "
            "html for the page on a run; all of them where none is named.",
            show_default=False,
        ),
    ] = None,
    run: Annotated[str | None, typer.Option("--run", metavar="ID", help="The run; the newest by default.")] = None,
    store: StoreOption = DEFAULT_STORE,
    param: ParamOption = None,
    form: FormatOption = None,
    to: OutOption = None,
    audio: Annotated[
        int, typer.Option("--audio", metavar="N", help="Of html: recordings that the page holds, 50 to 250 kB each.")
    ] = 0,
) -> None:
    """Show a report on a run, write the page on it, or list the reports there are, with their parameters.

    Examples:
        emtta report leaderboard

        emtta report domains --run demo-1a2b3c4d --param group=noise --format markdown

        emtta report errors --param method=em-tok-b --param kind=deletion

        emtta report html --run demo-1a2b3c4d --out demo.html --audio 10

        emtta report
    """
    from emtta_core.errors import UsageError
    from emtta_core.store.describe import report_list

    parameters = pairs(param)
    if "run_id" in parameters:
        raise UsageError(f"--param run_id={parameters['run_id']} is no parameter; write the run as --run ID")
    if name == PAGE:
        if parameters or form is not None:
            raise UsageError(f"{PAGE} is a page, not a table: it takes --run, --out and --audio, and no other option")
        if to is not None and to.suffix.lower() in ENDINGS:
            raise UsageError(f"{PAGE} is a page, not a table; --out {to} ends as one of rows does: write .html")
        write_page(run, store, to, audio)
        return
    if audio:
        raise UsageError(f"--audio {audio} is for `emtta report {PAGE}` alone; a table holds no recordings")
    chosen = form_of(form, to)
    if name is None:
        show(report_list(), chosen, to=to)
        return
    from emtta_core.store import Store
    from emtta_core.store.catalogue import Catalogue
    from emtta_core.store.notices import notices_of

    with Catalogue(Store.open(store)) as catalogue:
        found = catalogue.report(name, run, **parameters)
        show(found, chosen, to=to)
        say_if_empty(found, catalogue.store)
        told = notices_of(catalogue, run) if name != "runs" else ()
    for sentence in told:
        say(sentence)
