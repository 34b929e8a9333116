"""The pipeline: plan a suite's cells, prepare their audio, adapt to it, score the results, and store everything.

It does not depend on Prefect: each step is a plain function that `tasks/` wraps and a notebook can call.
"""
