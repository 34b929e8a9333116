"""The results page: every question can be asked, and its answer has the columns that the page shows."""

from pathlib import Path

import pytest
from results_page import Question, questions, renew
from store_factory import begin_run, end_attempt, with_errors, write_shard

from emtta_core.errors import EmttaError, UsageError
from emtta_core.pipeline.run_statistics import update_statistics
from emtta_core.store import Catalogue, CellKey, Store

PAGE = (Path(__file__).parents[2] / "docs" / "results.md").read_text("utf-8")
QUESTIONS = list(questions(PAGE))


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    """A run with the same name, groups, methods and seeds as the page's run, and one partial cell."""
    store = Store.open(tmp_path_factory.mktemp("store"), create=True)
    cells = [
        (group, group.upper(), method, seed)
        for group in ("noise", "accent", "language")
        for method in ("source", "source-beam", "greedy-em", "em-seq", "em-tok", "em-tok-b", "em-tok-b+beam")
        for seed in ((0, 1, 2) if method in ("em-seq", "em-tok") else (None,))
    ]
    begin_run(store, "demo", cells, utterances=6)
    for group, domain, method, seed in cells:
        last = 2 if method == "source" else 3 if group == "noise" else 1
        done = 5 if (group, method) == ("accent", "em-seq") else 6
        key = CellKey("demo", domain, method, seed)
        write_shard(store, key, {f"u{i}": [with_errors(2), with_errors(last)] for i in range(done)})
        end_attempt(store, key, group=group)
    assert update_statistics(store, "demo")
    return Catalogue(store)


def test_page_answers_dozen_questions() -> None:
    assert len(QUESTIONS) >= 12
    assert all(question.answer.count("\n") > 2 for question in QUESTIONS)
    assert PAGE.count("?\n\n") == len(QUESTIONS)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.text.split("\n")[0][:60])
def test_answer_columns_match_page(question: Question, catalogue: Catalogue) -> None:
    found = question.ask(catalogue)
    assert tuple(name for name in found.columns if name not in found.optional) == question.columns
    assert found.rows


def test_queries_work_on_empty_store(tmp_path: Path) -> None:
    with Catalogue(Store.open(tmp_path, create=True)) as empty:
        for question in QUESTIONS:
            if question.kind == "sql":
                assert question.ask(empty).columns == question.columns
            else:
                with pytest.raises(UsageError, match="unknown run 'demo'"):
                    question.ask(empty)


def test_answers_are_rewritten_in_place(catalogue: Catalogue) -> None:
    page = "# A\n\n```sql\nSELECT 1 AS x\n```\n\n| y |\n| --- |\n| 2 |\n\n```console\nemtta run demo\n```\n\nend\n"
    expected = page.replace("| y |\n| --- |\n| 2 |\n", "| x |\n| ---: |\n| 1 |\n")
    assert renew(page, catalogue) == expected
    assert renew(expected, catalogue) == expected
    assert renew(page.replace("\n| y |\n| --- |\n| 2 |\n", ""), catalogue) == expected


def test_invalid_question_is_named(catalogue: Catalogue) -> None:
    with pytest.raises(UsageError, match="'--format' stands in 'emtta report runs --format csv'; there may be --run"):
        Question("console", "emtta report runs --format csv\n", "").ask(catalogue)
    with pytest.raises(EmttaError, match="nowhere"):
        Question("sql", "FROM nowhere\n", "").ask(catalogue)
