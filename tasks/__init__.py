"""The Prefect tasks: thin wrappers of the pipeline's steps with names, retries and limits, without their own logic."""
