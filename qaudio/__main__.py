"""`python -m qaudio`: the `qaudio` command where its script is not on the path."""

import sys

from qaudio.cli import main

if __name__ == "__main__":
    sys.exit(main())
