"""The Prefect flows, and the `emtta` command in `flows.cli`."""
