"""Serving the nightly flow from one machine, as long as the process runs."""

from collections.abc import Mapping
from typing import Any

from prefect.schedules import Cron
from prefect.settings import PREFECT_API_URL
from prefect.types.entrypoint import EntrypointType

from emtta_core.errors import EmttaError
from flows.nightly import nightly
from flows.prefect_server import reach


def serve(name: str, cron: str, timezone: str, parameters: Mapping[str, Any]) -> None:
    """Serve the deployment `nightly/<name>` until Ctrl-C, one run at a time, each in a process of its own.

    Args:
        name: of the deployment.
        cron: when it runs.
        timezone: in which `cron` tells the hour.
        parameters: of the flow.

    Raises:
        EmttaError: no server is configured, or it does not answer. Prefect's temporary server schedules nothing.
    """
    if not PREFECT_API_URL.value():
        raise EmttaError(
            "a schedule needs Prefect's server, and PREFECT_API_URL names none; start it with "
            "`prefect server start --host 127.0.0.1 --port 4200`, and in this shell "
            "`export PREFECT_API_URL=http://127.0.0.1:4200/api`"
        )
    reach()
    nightly.serve(
        name=name,
        schedule=Cron(cron, timezone=timezone),
        parameters=dict(parameters),
        global_limit=1,
        limit=1,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
