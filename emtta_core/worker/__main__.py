"""`python -m emtta_core.worker JOB.json`: do one job; with `-`, those that come in on standard input."""

import faulthandler
import sys

from emtta_core.worker.worker import main

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m emtta_core.worker JOB.json, or - for jobs on standard input, a line of JSON each")
    faulthandler.enable()
    main(sys.argv[1])
