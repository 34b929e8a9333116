"""Update the answers in a page of questions, `docs/results.md`.

    python docs/tools/results_page.py docs/results.md STORE

asks the store the question in each block of the page, SQL or `emtta report …`, and replaces the answer below it.
"""

import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from emtta_core.errors import UsageError
from emtta_core.store.catalogue import Catalogue
from emtta_core.store.result import Result
from emtta_core.store.store import Store

_BLOCK = re.compile(
    r"^```(?P<kind>sql|console)\n(?P<text>.*?)^```\n(?:\n(?P<answer>(?:\|[^\n]*\n)+))?", re.MULTILINE | re.DOTALL
)
_REPORT = "emtta report "
_PAGE = "emtta report html"


@dataclass(frozen=True, slots=True)
class Question:
    """A question of a page."""

    kind: str  # `sql`, or `console` for a report
    text: str  # the query or the command
    answer: str  # the Markdown table that follows it; empty if there is none

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the current answer."""
        head = self.answer.partition("\n")[0]
        return tuple(name.strip() for name in head.strip("|").split("|")) if head else ()

    def ask(self, catalogue: Catalogue) -> Result:
        """Ask a store.

        Raises:
            EmttaError: if the query, or a name in the command, is refused or fails.
        """
        if self.kind == "sql":
            return catalogue.query(self.text)
        words = iter(shlex.split(self.text.removeprefix(_REPORT)))
        name, run_id, parameters = next(words), None, {}
        for word in words:
            value = next(words, "")
            if word == "--run":
                run_id = value
            elif word == "--param":
                key, _, parameters[key] = value.partition("=")
            else:
                raise UsageError(f"{word!r} stands in {self.text.strip()!r}; there may be --run and --param")
        return catalogue.report(name, run_id, **parameters)


def questions(page: str) -> Iterator[Question]:
    """Yield the questions of a page, in order: its SQL, and its report commands."""
    for block in _BLOCK.finditer(page):
        if _is_question(block):
            yield Question(block["kind"], block["text"], block["answer"] or "")


def renew(page: str, catalogue: Catalogue) -> str:
    """Replace each answer of a page with the store's."""

    def answered(block: re.Match[str]) -> str:
        if not _is_question(block):
            return block[0]
        answer = Question(block["kind"], block["text"], "").ask(catalogue).markdown()
        return f"```{block['kind']}\n{block['text']}```\n\n{answer}"

    return _BLOCK.sub(answered, page)


def _is_question(block: re.Match[str]) -> bool:
    # Whether a block is SQL, or the command of a report that returns rows.
    text = block["text"]
    return block["kind"] == "sql" or (text.startswith(_REPORT) and not text.startswith(_PAGE))


if __name__ == "__main__":
    path = Path(sys.argv[1])
    with Catalogue(Store.open(sys.argv[2])) as catalogue:
        path.write_text(renew(path.read_text("utf-8"), catalogue), "utf-8")
