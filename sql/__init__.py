"""The SQL of emtta, as data: `views/` is the stack that users query, `reports/` are named questions."""
