"""`python -m emtta_core`: the `emtta` command."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the current folder, whose files are the user's and not Python's to import
    from emtta_core.entry import main

    main()
