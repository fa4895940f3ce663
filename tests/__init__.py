"""Tests, by the room of the package that they test; what they share is in `support`."""

import pytest

pytest.register_assert_rewrite("tests.support")  # before it is imported: its assertions say what they compared, too
