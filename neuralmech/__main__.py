"""``python -m neuralmech``."""

import os
import sys

# Python put the working directory first, which may be a run folder from somewhere else; nothing was imported from there
# yet, as ``neuralmech/__init__.py`` imports nothing that Python has not loaded by then.
if not sys.flags.safe_path and sys.path[0] == os.getcwd() != os.path.dirname(os.path.dirname(__file__)):  # noqa: PTH109, PTH120
    del sys.path[0]

from neuralmech.cli import main

if __name__ == "__main__":
    main()
