"""`python -m emtta_core.worker JOB.json`: run one job, or with `-` those from standard input."""

import faulthandler
import sys

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m emtta_core.worker JOB.json, or - for jobs on standard input, one line of JSON each")
    from emtta_core.worker.worker import main  # takes a second, so not before the arguments are checked

    faulthandler.enable()
    main(sys.argv[1])
