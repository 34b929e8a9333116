"""A run as a data set for the hub: its card, its utterances, and its figures in the form of `.eval_results`.

https://huggingface.co/docs/hub/datasets-cards and https://huggingface.co/docs/hub/eval-results
"""

from collections.abc import Iterator
from typing import Any

from huggingface_hub.utils import HFValidationError, validate_repo_id, yaml_dump

from emtta_core.errors import UsageError
from emtta_core.pipeline.run_results import results_of
from emtta_core.store import Catalogue
from emtta_core.store.describe import heading
from emtta_core.store.reports import EVERY, views
from emtta_core.store.result import Result

_CARD = """---
{front}---

# {title}

What the model `{model}` heard in the suite `{suite}`, method by method: the utterances of an evaluation of test-time
adaptation of speech recognition by entropy minimisation. The audio is not in here. Made with emtta: {head}.
{notices}
**Licence.** The transcripts are those of the corpora, under the corpora's licences. Name them here, and in the field
`license` above, before you publish this.

## Word error rates

WER in %, with 95 % bootstrap intervals; the change against `source` in points; scored by `{scorer}`.

{leaderboard}
## Columns

`{file}` has one row for each utterance of a cell (a domain with a method, and a seed where the method draws random
numbers). Sum `errors` and `words` for a WER; do not average `wer`.

| column | meaning |
|---|---|
{columns}"""

FILE = "data/utterances.parquet"
"""Where the utterances are."""


def check_hub_id(hub_id: str | None) -> str:
    """Check the id under which the folder is to be published; UsageError where it is none, or none is given."""
    if hub_id is None:
        raise UsageError("--format hub wants the id that the data set is to have: add --hub-id OWNER/NAME")
    try:
        validate_repo_id(hub_id)
    except HFValidationError as error:
        raise UsageError(f"--hub-id {hub_id!r} is no id of the hub, as OWNER/NAME: {error}") from error
    if "/" not in hub_id:
        raise UsageError(f"--hub-id {hub_id!r} has no owner; write OWNER/NAME")
    return hub_id


def hub_files(
    catalogue: Catalogue, run_id: str, hub_id: str, utterances: Result, leaderboard: Result
) -> Iterator[tuple[str, bytes]]:
    """Yield the files of the folder, each with its name: card, utterances, figures.

    Args:
        catalogue: of the store.
        run_id: the run.
        hub_id: the id that the data set is to have, `OWNER/NAME`.
        utterances: those of the run.
        leaderboard: of the run, as a table for a reader.

    Raises:
        EmttaError: DuckDB fails a query.
    """
    found = results_of(catalogue, run_id)
    run, suite = found["run"], found["run"]["suite"]
    title = f"{suite}: hypotheses of {run['model']}"
    meanings = views()["utterances"].columns
    card = _CARD.format(
        front=yaml_dump(_front(title, utterances), sort_keys=False),
        title=title,
        model=run["model"],
        suite=suite,
        head=heading(catalogue, run_id),
        notices="".join(f"\n{notice}\n" for notice in found["notices"]),
        scorer=found["scoring"]["scorer"],
        leaderboard=leaderboard.markdown(),
        file=FILE,
        columns="".join(f"| `{name}` | {meanings.get(name, '')} |\n" for name in utterances.columns),
    )
    yield "README.md", card.encode()
    yield FILE, utterances.parquet()
    yield f".eval_results/{suite}.yaml", yaml_dump(list(_entries(found, hub_id)), sort_keys=False).encode()


def _front(title: str, utterances: Result) -> dict[str, Any]:
    return {
        "pretty_name": title,
        "language": sorted(set(utterances.table["language"].to_pylist())),
        "task_categories": ["automatic-speech-recognition"],
        "tags": ["test-time-adaptation", "word-error-rate", "emtta"],
        "configs": [{"config_name": "default", "data_files": [{"split": "test", "path": FILE}]}],
    }


def _entries(found: dict[str, Any], hub_id: str) -> Iterator[dict[str, Any]]:
    # One for each figure that is not hidden, of a method over all domains and of each domain. A group may be called as
    # one of its domains is.
    over_all = [figure for figure in found["groups"] if figure["group"] == EVERY]
    for figure in [*over_all, *found["domains"]]:
        if figure["wer"] is None:
            continue
        low, high = figure["wer_low"], figure["wer_high"]
        interval = "" if low is None else f", {figure['confidence']:.0%} interval {low:.2f} to {high:.2f}"
        yield {
            "dataset": {"id": hub_id, "task_id": figure.get("domain", EVERY)},
            "value": round(figure["wer"], 4),
            "date": found["run"]["created_at"],
            "notes": f"WER in %, method {figure['method']}, scorer {found['scoring']['scorer']}{interval}",
        }
