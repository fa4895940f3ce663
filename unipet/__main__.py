"""`python -m unipet` is the same as `unipet`."""

from __future__ import annotations

import os
import sys

if sys.path[:1] in (
    [""],
    [os.getcwd()],
):  # `python -m` looks there first: a folder's own files must not pass for packages
    del sys.path[0]

from unipet.cli.main import main

sys.exit(main())
