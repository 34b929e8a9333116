"""Serving the nightly flow from one machine, as long as the process runs."""

from collections.abc import Mapping
from typing import Any

from prefect import get_client
from prefect import serve as serve_deployments
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.schedules import Cron

from emtta_core.errors import UsageError
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
        UsageError: no server is configured (Prefect's temporary one schedules nothing), or the name is taken.
        EmttaError: the server does not answer.
    """
    reach()
    _refuse_taken(name, parameters)
    deployment = RunnerDeployment.from_flow(
        nightly, name, schedule=Cron(cron, timezone=timezone), parameters=dict(parameters), concurrency_limit=1
    )
    deployment.entrypoint = "emtta_core.entry.nightly"  # finds emtta's own packages before it imports the flow
    serve_deployments(deployment, name=name, limit=1)


def _refuse_taken(name: str, parameters: Mapping[str, Any]) -> None:
    """Refuse the name of a deployment that does something else: serving it would take it over."""
    with get_client(sync_client=True) as client:
        try:
            found = client.read_deployment_by_name(f"{nightly.name}/{name}")
        except ObjectNotFound:
            return
    if found.work_pool_name is not None:
        what = f"belongs to the work pool {found.work_pool_name}"
    elif any(found.parameters.get(key) != parameters[key] for key in ("suite", "store")):
        what = f"evaluates {found.parameters.get('suite')} into {found.parameters.get('store')}"
    else:
        return
    raise UsageError(
        f"the deployment {nightly.name}/{name} is there already and {what}; choose another name, for example: "
        f"--name {name}-2, or delete it: prefect deployment delete {nightly.name}/{name}"
    )
