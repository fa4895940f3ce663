"""`python -m unipet` is the same as `unipet`."""

from __future__ import annotations

import sys

from unipet.cli import main

sys.exit(main())
