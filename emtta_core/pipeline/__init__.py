"""The pipeline: plan a suite's cells, prepare their audio, adapt to it, score, and put all of it in the store.

No word of Prefect here: each step is a plain function, which `tasks/` wraps, and which a notebook may call.
"""
