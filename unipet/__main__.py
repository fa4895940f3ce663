"""`python -m unipet` is the same as `unipet`."""

from __future__ import annotations

import os
import sys

if sys.path[:1] in (
    [""],
    [os.getcwd()],
):  # `python -m` searches it first: files in the current folder must not replace packages
    del sys.path[0]

from unipet.cli.main import main

sys.exit(main())
