"""Options that several verbs share."""

import os
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from flows.cli._output import Format
from flows.runner import Runner

if TYPE_CHECKING:
    from emtta_core.store.queries import Limits


def _complete_suite(beginning: str) -> list[str]:
    from emtta_core.suite.file import suite_names

    return [name for name in suite_names() if name.startswith(beginning)]


SuiteArgument = Annotated[
    str,
    typer.Argument(
        help="A shipped suite (see emtta suites), or the path of a .toml file.", autocompletion=_complete_suite
    ),
]

SnrConventionOption = Annotated[
    Literal["exact", "msnsd-old"] | None,
    typer.Option(
        "--snr-convention",
        help="What 10 dB means: 10 dB, or the 5 dB of MS-SNSD's old mixer (a separate run). Default: the suite's.",
    ),
]

AllowAbsoluteOption = Annotated[
    bool,
    typer.Option("--allow-absolute", help="Let corpora of the kind folder read files outside their folders."),
]

StoreOption = Annotated[
    str,
    typer.Option(
        "--store", metavar="STORE", envvar="EMTTA_STORE", help="A folder, or s3://BUCKET/PREFIX.", show_default=True
    ),
]

DevicesOption = Annotated[
    str | None,
    typer.Option("--devices", metavar="auto|cpu|cuda:0,…", help="Where cells run. Default: as the suite says."),
]

IsolationOption = Annotated[
    Literal["process", "none"] | None,
    typer.Option("--isolation", help="Cells in separate processes, or all in this one. Default: as the suite says."),
]

RunnerOption = Annotated[
    Runner, typer.Option("--runner", help="This machine, or a Ray cluster whose machines can all reach the store.")
]

RayAddressOption = Annotated[
    str | None,
    typer.Option(
        "--ray-address", metavar="HOST:PORT", help="Address of the cluster's head. Default: this machine's cluster."
    ),
]

CorpusDirOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--corpus-dir",
        metavar="DIR",
        file_okay=False,
        help="Where extracted corpora are stored; searched before the hub; repeatable. Default: EMTTA_CORPORA.",
        show_default=False,
    ),
]

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's id; see emtta list.")]

DomainsOption = Annotated[
    list[str] | None, typer.Option("--only", metavar="domain=…|group=…", help="These domains; repeatable.")
]

LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="At most this many utterances per domain, from all speakers.")
]

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")]

ParamOption = Annotated[
    list[str] | None,
    typer.Option("--param", metavar="NAME=VALUE", help="A parameter; repeatable.", show_default=False),
]

ColumnsOption = Annotated[
    str | None,
    typer.Option("--columns", metavar="A,B,…", help="Only these columns, in this order.", show_default=False),
]

OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE",
        dir_okay=False,
        help="Write to this file; its ending (.csv, .json, .md, .tex, .parquet, .txt) chooses the format.",
        show_default=False,
    ),
]

FormatOption = Annotated[
    Format | None,
    typer.Option(
        "--format", help="Output format. Default: by the ending of FILE, otherwise table.", show_default=False
    ),
]

FormOption = Annotated[Literal["table", "json"], typer.Option("--format", help="Output format.")]

ScorerOption = Annotated[
    str | None,
    typer.Option(
        "--scorer", metavar="NAME", help="Figures by this scorer. Default: the first of the suite.", show_default=False
    ),
]

TimeoutOption = Annotated[
    float | None,
    typer.Option(
        "--timeout", metavar="SECONDS", help="Time limit of a query. Default: 600; 0 for none.", show_default=False
    ),
]

MinEffectOption = Annotated[
    str,
    typer.Option(
        "--min-effect",
        metavar="POINTS|SHARE%",
        help="Ignore changes of at most this many points of WER, or this share of the baseline's, such as 2%.",
    ),
]

MemoryOption = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="SIZE",
        help="Memory limit of a query, such as 4GB. Default: 40 % of the machine's memory.",
        show_default=False,
    ),
]


DEFAULT_STORE = "emtta-store"


def flowing(docstring: str | None) -> str:
    """The help of a verb, with each paragraph except its examples on one line, so that the terminal can wrap it."""
    paragraphs = cleandoc(docstring or "").split("\n\n")
    return "\n\n".join(part if part.startswith("Example") else part.replace("\n", " ") for part in paragraphs)


def use_corpora(folders: list[Path] | None) -> None:
    """Look for published corpora in these folders; raises UsageError if one does not exist."""
    from emtta_core.errors import UsageError
    from emtta_core.input_files import CORPORA

    for folder in folders or ():
        if not folder.is_dir():
            raise UsageError(
                f"--corpus-dir {folder} is not a folder; name the folder that contains LibriSpeech/ and other corpora"
            )
    if folders:
        os.environ[CORPORA] = os.pathsep.join(str(folder.absolute()) for folder in folders)


def limits(timeout: float | None, memory: str | None) -> "Limits":
    """The limits of a query; raises UsageError if an option is out of range."""
    from emtta_core.store.queries import SECONDS, Limits, parse_size

    seconds = SECONDS if timeout is None else timeout or None
    return Limits(seconds, parse_size(memory) if memory is not None else None, options=True)


def names(given: str | None) -> list[str]:
    """The names in a comma-separated list; raises UsageError if one is empty."""
    from emtta_core.errors import UsageError

    found = [name.strip() for name in given.split(",")] if given is not None else []
    if not all(found):
        raise UsageError(
            f"--columns {given!r} has an empty name; separate names with commas, such as --columns method,wer"
        )
    return found


def pairs(given: list[str] | None) -> dict[str, str]:
    """Parameters from `name=value` texts; raises UsageError if one has another form."""
    from emtta_core.errors import UsageError

    found = {}
    for text in given or ():
        name, sign, value = text.partition("=")
        if not (sign and name.isidentifier()):
            raise UsageError(f"--param {text!r} is not a parameter; write NAME=VALUE")
        found[name] = value
    return found
