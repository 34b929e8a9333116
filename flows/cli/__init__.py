"""The `emtta` command: each verb is a function in one of these files, listed in `main`, without logic of its own."""
