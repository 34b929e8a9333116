"""`emtta compare`: what changed from one run to another, and whether that is more than chance."""

import json
from enum import StrEnum
from typing import Annotated

import typer

from flows.cli.options import DEFAULT_STORE, StoreOption
from flows.cli.output import INCOMPLETE, Format, put, say, show


class Form(StrEnum):
    """How a comparison is written."""

    TABLE = "table"
    JSON = "json"
    MARKDOWN = "markdown"


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help="The earlier run's id; see emtta list.")],
    b: Annotated[str, typer.Argument(metavar="B", help="The later run's id.")],
    method: Annotated[list[str] | None, typer.Option("--method", help="Only this method; repeatable.")] = None,
    domain: Annotated[list[str] | None, typer.Option("--domain", help="Only this domain; repeatable.")] = None,
    fail: Annotated[bool, typer.Option("--fail-on-regression", help="Exit with 3 where a figure is worse.")] = False,
    alpha: Annotated[float, typer.Option("--alpha", help="A change is significant with a p of at most this.")] = 0.05,
    min_effect: Annotated[
        float, typer.Option("--min-effect", metavar="POINTS", help="And only where it is larger, in points of WER.")
    ] = 0.2,
    store: StoreOption = DEFAULT_STORE,
    form: Annotated[Form, typer.Option("--format", help="How the comparison is written.")] = Form.TABLE,
) -> None:
    """Compare two runs utterance by utterance: WER in A and B, and the difference with its interval and p.

    Interval and p are those of the stored statistics: of paired resamples, and of a sign-flip test, by Holm over a
    method's domains. The runs must have heard the same speech; in what else they differ is said. A figure is worse
    where p is at most --alpha and the difference over --min-effect. Exit codes: 0, 2 for runs that cannot be compared,
    3 for --fail-on-regression.

    Examples:
        emtta compare demo-2026-11-22 demo-2026-11-23

        emtta compare demo-1a2b3c4d demo-5e6f7a8b --method em-tok-b --fail-on-regression --format markdown
    """
    from emtta_core.compare import compare as compare_runs
    from emtta_core.store import Store
    from emtta_core.store.catalogue import Catalogue
    from emtta_core.store.notices import notices_of

    opened = Store.open(store)
    found = compare_runs(opened, a, b, methods=method or (), domains=domain or (), alpha=alpha, min_effect=min_effect)
    with Catalogue(opened) as catalogue:
        told = notices_of(catalogue, b)
    for sentence in told:
        say(sentence)
    if form is Form.JSON:
        put(json.dumps(found.as_dict(), ensure_ascii=False, indent=2) + "\n")
    elif form is Form.MARKDOWN:
        put(found.markdown())
    else:
        show(found.as_result(), Format.TABLE, f"Word error rate, %: A is {a}, B is {b}")
        for line in (*map(str, found.differences), *found.notes, found.summary):
            say(line)
    if fail and found.regressions:
        raise typer.Exit(INCOMPLETE)
