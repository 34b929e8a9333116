"""`python -m emtta_core`: the `emtta` command."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the current folder, as Python must not import the user's files
    from emtta_core.entry import main

    main()
