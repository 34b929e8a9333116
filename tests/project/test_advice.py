"""Commands and options in messages, pages and documentation exist."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from flows.cli.main import app

ROOT = Path(__file__).parents[2]
TREE: Any = typer.main.get_command(app)
"""The command with its verbs, in the form of the library behind Typer."""
OPTION = re.compile(r"(?<![\w(-])--[a-z][a-z-]*")
CODE = re.compile(r"```.*?```|`(?:emtta |--)[^`]+`|<code>.*?</code>", re.DOTALL)
COMMAND = re.compile(r"(?P<alone>`|: )?(?<![\w'/.-])emtta (?P<words>[^;`\n#|<&)]*)")
"""The group `alone` is a colon or a backtick; without one, emtta may be the subject of a sentence in a message."""
VALUE = "VALUE"
"""Placeholder for a part of a text that is only known at run time."""
FOREIGN = {
    *("--error-unmatch", "--porcelain", "--untracked-files"),  # of git
    *("--force-reinstall", "--no-deps"),  # of pip
    *("--head", "--address", "--num-cpus"),  # of ray
    *("--nights", "--shards", "--errors", "--watch"),  # of the benchmarks
}


def options(command: Any) -> set[str]:
    """The options of a verb and of the verbs below it."""
    own = {name for given in command.params for name in (*given.opts, *given.secondary_opts)} | {"--help"}
    return own.union(*map(options, getattr(command, "commands", {}).values()))


def mistakes(text: str, *, code: bool) -> Iterator[str]:
    """Yield the mistakes in the commands of a text, which is either code or a message."""
    for found in COMMAND.finditer(text):
        command, words = TREE, found["words"].split()
        while words and words[0].strip(".,") in getattr(command, "commands", {}):
            command = command.commands[words.pop(0).strip(".,")]
        if command is TREE and words and not words[0].startswith("-"):
            if words[0] != VALUE and (code or found["alone"]):
                yield f"{found[0]}: there is no such verb"
        elif unknown := set(OPTION.findall(" ".join(words))) - options(command):
            yield f"{found[0]}: there is no {', '.join(unknown)}"


def texts(file: Path) -> Iterator[str]:
    """Yield the texts of a Python file, and the commands that it builds from words."""
    parts = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            parts |= {id(part) for part in node.values}
            yield "".join(words(node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "command":
            yield " ".join([": emtta", *words(node.args), "--store"] if node.args else [])
        elif isinstance(node, ast.List) and words(node.elts)[:1] == ["emtta"]:
            yield ": " + " ".join(words(node.elts))


def words(nodes: list[ast.expr]) -> list[str]:
    return [str(node.value) if isinstance(node, ast.Constant) else VALUE for node in nodes]


KNOWN = options(TREE) | FOREIGN
PYTHON = [path for folder in ("emtta_core", "flows", "tasks") for path in sorted((ROOT / folder).rglob("*.py"))]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "emtta_core").rglob("*.html"))]


def test_message_commands_and_options_exist() -> None:
    for file in PYTHON:
        for text in texts(file):
            assert list(mistakes(text, code=False)) == [], file
            assert set(OPTION.findall(text)) <= KNOWN, (file, text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_commands_and_options_exist(page: Path) -> None:
    for code in CODE.findall(page.read_text(encoding="utf-8").replace("\\\n", " ")):
        assert list(mistakes(code, code=True)) == []
        if code.startswith("`--"):
            assert set(OPTION.findall(code)) <= KNOWN


@pytest.mark.parametrize(
    "text",
    [
        "add it with: emtta rum smoke",
        "`emtta rum` makes one",
        "see emtta run smoke --sped 3",
        "emtta report html --out x.html --speed",
        "emtta demo train --measure",
    ],
)
def test_nonexistent_command_is_detected(text: str) -> None:
    assert len(list(mistakes(text, code=False))) == 1
