import runpy
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "scripts/soak.py"


@pytest.mark.slow
def test_memory_and_step_time_stay_flat(monkeypatch):
    """A short version of the soak; the record's rows alone would be 20 MB if they were kept."""
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    found = runpy.run_path(str(SCRIPT))["soak"](30_000, 10)
    memory, times = found["memory_mb"], found["step_us"]
    assert memory[-1] - memory[2] < 10
    assert np.median(times[-3:]) < 1.5 * np.median(times[1:4])
