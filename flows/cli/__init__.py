"""The `emtta` command: a verb is a function of one of these files, as `main` lists them; no logic of its own."""
