"""`emtta score`: score stored hypotheses again, by other scorers or with corrected references."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli._options import DEFAULT_STORE, StoreOption
from flows.cli._output import say


def score(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's id; see emtta list.")],
    scorer: Annotated[
        list[str] | None,
        typer.Option(
            "--scorer",
            metavar="NAME",
            help="whisper, basic, marks, jiwer, none, or my_package.mine:normalize; +numbers and +compounds behind it. "
            "Repeatable. Default: the suite's, and those used before.",
            show_default=False,
        ),
    ] = None,
    references: Annotated[
        Path | None,
        typer.Option(
            "--references", metavar="FILE", dir_okay=False, help="Corrected transcripts: id, text (.csv, .tsv, .jsonl)."
        ),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Utterances that the references lack keep their transcripts.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, max=256, help="Processes at most. Default: all cores.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Score what a run has stored again: each hypothesis, and that of each step. No hypothesis is made anew.

    Scores of several scorers lie side by side; reports show one with --scorer. What is scored already in the same way
    is left alone, so that the command goes on where it was stopped, and mends a run that two releases have scored.

    Examples:
        emtta score demo-1a2b3c4d --scorer jiwer --scorer whisper+compounds

        emtta score demo-1a2b3c4d --references corrected.csv --partial
    """
    from emtta_core.cores import cores
    from emtta_core.errors import UsageError
    from emtta_core.pipeline.references import read_references
    from emtta_core.pipeline.rescoring import rescore
    from emtta_core.store import Store

    if partial and references is None:
        raise UsageError("--partial belongs to --references FILE; give that too, or leave it out")
    opened = Store.open(store)
    opened.run(run)
    corrected = read_references(references, opened, run, partial=partial) if references else None
    found = rescore(opened, run, scorer or (), references=corrected, workers=workers or cores())
    for name, count in found.scored.items():
        say(f"{name}: {count} utterances scored, {found.kept[name]} had been scored in the same way")
    for name in found.scored:
        say(f"see: {opened.command('report', 'leaderboard', '--run', run, '--scorer', name)}")
