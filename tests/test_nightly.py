"""A night is a run of its own, compared with the last complete one; a regression is a state, an event and an artifact."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import CLEAN, Speech, SuiteFile
from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.objects import Artifact, State
from prefect.events.clients import AssertingEventsClient
from prefect.events.worker import EventsWorker

from emtta_core.pipeline.progress import channel
from emtta_core.store import Store
from flows.nightly import nightly

pytestmark = pytest.mark.usefixtures("prefect_server")


def night(path: Path, store: Path, **parameters: Any) -> State[Any]:
    with channel.listening(lambda _: None):
        return nightly(str(path), str(store), return_state=True, **parameters)


def test_two_nights_are_two_runs_and_the_second_is_compared_with_the_first(
    suite_file: SuiteFile, speech: Speech, tmp_path: Path
) -> None:
    path, store = suite_file(), tmp_path / "store"
    first = night(path, store)
    assert first.is_completed(), first.message
    assert "there is no complete run of this suite and model before it" in str(first.message)
    second = night(path, store)
    assert second.is_completed(), second.message
    later, earlier = Store.open(store).runs()
    assert later == f"{earlier}-2"
    assert f"{later} against {earlier}: 0 worse and 0 better of 4 figures" in str(second.message)
