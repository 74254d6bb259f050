"""Compiled code on the disk is that of the sources, whichever file of them changed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import neuralmech
from neuralmech import jit

ROOT = Path(neuralmech.__file__).parent
CALL = """
import numpy as np
from neuralmech.charges.cpu_kernels import sum_pairs
from neuralmech.charges.plan import rectangles
x, sums, columns = np.ones(6), np.zeros(3), np.zeros((4, 2))
sum_pairs(x, x, rectangles(start=[0], rows=3, columns=2, column_place=0), sums, columns)
print(sums[0])
"""


def test_all_files_with_compiled_functions_are_watched():
    files = {str(p.relative_to(ROOT)) for p in ROOT.rglob("*.py") if "neuralmech.jit import" in p.read_text()}
    assert files | {"jit.py"} == set(jit.SOURCES)


def test_code_of_an_older_source_is_not_used(tmp_path):
    """The function that is called is in another file than what changes."""
    shutil.copytree(ROOT, tmp_path / "neuralmech", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def call():
        done = subprocess.run(
            [sys.executable, "-c", CALL], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert len(done.stderr.splitlines()) == is_compiled
        assert ("compiling the sums of charges" in done.stderr) == is_compiled
        return float(done.stdout)

    is_compiled = True
    assert call() == 3.0
    compiled = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*.nbc")}
    is_compiled = False
    assert call() == 3.0
    assert compiled == {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*.nbc")}  # found again
    source = tmp_path / "neuralmech/charges/cpu_rows.py"
    text = source.read_text()
    assert text.count("total += columns[tap]") == 1
    source.write_text(text.replace("total += columns[tap]", "total += 2 * columns[tap]"))
    is_compiled = True
    assert call() == 6.0
