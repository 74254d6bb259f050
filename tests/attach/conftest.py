"""What frameworks keep for a whole process, and tests must not hand on."""

import sys

import pytest


@pytest.fixture(autouse=True)
def _fresh_accelerate():
    """The precision that accelerate was first told holds for all that come after it."""
    yield
    if "accelerate" in sys.modules:
        sys.modules["accelerate.state"].AcceleratorState._reset_state(reset_partial_state=True)
