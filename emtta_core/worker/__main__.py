"""`python -m emtta_core.worker JOB.json`: do one job; with `-`, those that come in on standard input."""

import faulthandler
import sys

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m emtta_core.worker JOB.json, or - for jobs on standard input, a line of JSON each")
    from emtta_core.worker.worker import main  # takes a second, which a mistake need not wait for

    faulthandler.enable()
    main(sys.argv[1])
