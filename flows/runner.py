"""The two ways in which a run's cells are executed, and the options of each."""

from importlib.util import find_spec
from typing import Literal

from emtta_core.errors import EmttaError, UsageError

Runner = Literal["threads", "ray"]
"""Threads of the flow that hand cells to processes of this machine; or the machines of a Ray cluster."""


def check_runner(runner: Runner, address: str | None, devices: str | None, isolation: str | None) -> None:
    """Refuse options that a runner has no use for, and one whose package is missing.

    Raises:
        UsageError: an option that the runner has no use for.
        EmttaError: the package that it needs is not installed.
    """
    if runner == "threads":
        if address is not None:
            raise UsageError(f"--ray-address {address!r} is of use with --runner ray alone; add it, or leave it out")
        return
    if devices is not None:
        raise UsageError(
            f"--devices {devices!r} names devices of this machine, and with --runner ray a cell gets a GPU or a CPU of "
            "the cluster; leave it out (the suite's model.device says which of the two)"
        )
    if isolation is not None:
        raise UsageError(f"Ray keeps cells apart by itself; leave out --isolation {isolation}, or --runner ray")
    for package in ("ray", "prefect_ray"):
        if find_spec(package) is None:
            raise EmttaError(
                f"the runner ray needs the package {package}, which is not installed: pip install 'emtta[ray]'"
            )
