"""The Prefect tasks: a thin wrapping of the pipeline's steps with names, retries and limits; no logic of their own."""
