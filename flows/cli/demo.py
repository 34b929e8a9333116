"""`emtta demo`: the demo model's recipe and its card."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli._output import echo, prose

app = typer.Typer(help="Train the demo model, and show or measure its card.", no_args_is_help=True)

DEFAULT_FOLDER = Path("demo-model")


@app.command()
def train(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The new model's folder.")] = DEFAULT_FOLDER,
) -> None:
    """Train the demo model from scratch; repeating the command resumes from the last state.

    A suite evaluates it with model = { name = "demo-model" }.

    Example:
        emtta demo train --out demo-model && emtta demo card --model demo-model --measure
    """
    from emtta_core.demo.train import train as train_model

    train_model(out, echo=echo)


@app.command()
def card(
    model: Annotated[
        Path | None, typer.Option("--model", metavar="DIR", help="Default: the model included in emtta.")
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Measure again, and write the card.")] = False,
    utterances: Annotated[int, typer.Option(min=1, help="Test utterances per language and voice.")] = 150,
) -> None:
    """Show the card of a demo model: what it is, and its word error rates.

    Examples:
        emtta demo card

        emtta demo card --model demo-model --measure --utterances 50
    """
    from rich.markdown import Markdown

    from emtta_core.demo import card as cards
    from emtta_core.demo.recipe import Recipe

    folder = model or cards.SHIPPED
    if measure:
        Recipe.load(folder)  # refuses any other folder before minutes are spent
        rows = []
        for row in cards.measure(folder, utterances):
            echo(f"{row.language} {row.voices}: {row.wer:.1f} %")
            rows.append(row)
        cards.write_card(folder, rows)
    prose().print(Markdown(cards.read_card(folder)))
