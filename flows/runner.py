"""The two runners for a run's cells, and their options."""

from importlib.util import find_spec
from typing import Literal

from emtta_core.errors import EmttaError, UsageError

Runner = Literal["threads", "ray"]
"""Threads of the flow that pass cells to processes on this machine; or the machines of a Ray cluster."""


def check_runner(runner: Runner, address: str | None, devices: str | None, isolation: str | None) -> None:
    """Refuse options that do not apply to a runner, and a runner whose package is missing.

    Raises:
        UsageError: an option does not apply to the runner.
        EmttaError: the package that the runner needs is not installed.
    """
    if runner == "threads":
        if address is not None:
            raise UsageError(f"--ray-address {address!r} needs --runner ray; add that, or leave out --ray-address")
        return
    if devices is not None:
        raise UsageError(
            f"--devices {devices!r} names devices of this machine, but with --runner ray a cell gets a GPU or a CPU of "
            "the cluster; leave it out (the suite's model.device decides which of the two)"
        )
    if isolation is not None:
        raise UsageError(f"Ray isolates cells itself; leave out --isolation {isolation}, or --runner ray")
    for package in ("ray", "prefect_ray"):
        if find_spec(package) is None:
            raise EmttaError(
                f"the runner ray needs the package {package}, which is not installed: pip install 'emtta[ray]'"
            )
