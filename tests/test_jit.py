"""Compiled code on the disk is that of the sources, whichever file of them changed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import neuralmech
from neuralmech import jit

ROOT = Path(neuralmech.__file__).parent
CALL = """
import numpy as np
from neuralmech.charges.cpu_kernels import sum_up
from neuralmech.charges.plan import rectangles
x, into = np.ones(6), (np.zeros((4, 2)), np.zeros((4, 0)), np.zeros((7, 2)))
sum_up(rectangles(start=[0], rows=3, columns=2, column_place=0), (x, x, x), into)
print(into[0][0, 0])
"""


def test_all_files_with_compiled_functions_are_watched():
    files = {str(p.relative_to(ROOT)) for p in ROOT.rglob("*.py") if "neuralmech.jit import" in p.read_text()}
    assert files | {"jit.py"} == set(jit.SOURCES)


def copied(folder):
    shutil.copytree(ROOT, folder / "neuralmech", ignore=shutil.ignore_patterns("__pycache__"))
    return folder / "neuralmech/charges"


def call(folder, *, compiles):
    """What a column sums to by a copy of the package, which says whether it compiles."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "NUMBA_CACHE_DIR": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", CALL], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == compiles
    assert ("compiling the sums of charges" in done.stderr) == compiles
    return float(done.stdout)


def test_code_of_an_older_source_is_not_used(tmp_path):
    """The function that is called is in another file than what changes."""
    charges = copied(tmp_path)
    assert call(tmp_path, compiles=True) == 3.0
    compiled = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*.nbc")}
    assert call(tmp_path, compiles=False) == 3.0
    assert compiled == {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*.nbc")}  # found again
    text = (charges / "cpu_rows.py").read_text()
    assert text.count("total += columns[tap]") == 1
    (charges / "cpu_rows.py").write_text(text.replace("total += columns[tap]", "total += 2 * columns[tap]"))
    assert call(tmp_path, compiles=True) == 6.0


def test_code_that_names_a_class_of_another_version_is_compiled_anew_and_kept(tmp_path):
    sources = {path: path.read_text() for path in copied(tmp_path).glob("cpu*.py")}
    for path, text in sources.items():
        path.write_text(re.sub(r"\bInto\b", "Older", text))
    assert call(tmp_path, compiles=True) == 3.0
    for path, text in sources.items():
        path.write_text(text)
    assert call(tmp_path, compiles=True) == 3.0
    assert call(tmp_path, compiles=False) == 3.0
