"""`emtta demo`: the demo model's recipe and its card."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.output import say

app = typer.Typer(help="Train the demo model, and measure its card.", no_args_is_help=True)

Folder = Annotated[Path, typer.Option("--out", metavar="DIR", help="The model's folder.")]
DEFAULT_FOLDER = Path("demo-model")


@app.command()
def train(out: Folder = DEFAULT_FOLDER) -> None:
    """Train the demo model; the same command again goes on from the last state.

    Example:
        emtta demo train --out demo-model && emtta run demo
    """
    from emtta_core.demo.train import train as train_model

    train_model(out, say=say)


@app.command()
def card(
    out: Folder = DEFAULT_FOLDER,
    utterances: Annotated[int, typer.Option(min=1, help="Test utterances a language and voice.")] = 150,
) -> None:
    """Measure the word error rates of a demo model, and write them into its card.

    Example:
        emtta demo card --out demo-model --utterances 50
    """
    from emtta_core.demo.card import measure, write_card
    from emtta_core.demo.train import Recipe

    rows = []
    for row in measure(out, utterances):
        say(f"{row.language} {row.voices}: {row.wer:.1f} %")
        rows.append(row)
    write_card(out, rows, Recipe())
