"""What a start imports: options are checked before torch is, and data before scikit-learn would be."""

import numpy as np
import pytest
import torch

from interpreters import Forked
from neuralmech.data import DigitsOptions, load_data
from neuralmech.data.builtin import _digits_file
from neuralmech.errors import UserError
from neuralmech.models import options, parts
from neuralmech.verification import names, precision

HEAVY = ("torch", "numpy", "h5py", "pandas", "scipy", "sklearn", "numba", "matplotlib")
REPORT = f"""
import sys
from neuralmech.cli import main
try:
    main(sys.argv[1:])
finally:
    print("imported:", *(name for name in {HEAVY} if name in sys.modules))
"""


def imported_by(words, folder):
    """Of an interpreter that has imported Hydra, and what that imports, alone."""
    process = Forked(REPORT, *words, cwd=folder, modules=("neuralmech.cli", "hydra.main", "hydra.core.plugins"))
    out, err = process.communicate()
    return process.returncode, out.splitlines()[-1].split()[1:], err


@pytest.mark.parametrize(
    "words",
    [
        ["train", "train.epocs=3"],
        ["train", "optim.lr=-1"],
        ["train", "model.norm=bach"],
        ["train", "track.families=[scal]"],
        ["train", "track.signals=[valu]"],
        ["train", "data.label_noise=2"],
        ["train", "loss.label_smoothing=2"],
        ["train", "logger.every=0"],
        ["train", "-m", "optim.lr=-1,-2"],
        ["symmetries", "model.depth=0"],
        ["symmetries", "certify=3"],
        ["verify", "conditions=[evl]"],
        ["verify", "model=transformer", "model.heads=7"],
        ["forecast", "run", "lr=0.1"],
        ["watch", "run", "secnds=3"],
        ["data", "mnits"],
        ["data", "mnist", "foldr=here"],
    ],
    ids=" ".join,
)
def test_a_wrong_option_is_answered_before_anything_heavy_is_imported(words, tmp_path):
    code, imported, err = imported_by(words, tmp_path)
    assert code == 2, err
    assert all(line.startswith("neuralmech: ") for line in err.splitlines())
    assert imported == []


@pytest.mark.parametrize("command", ["train", "analyze", "watch", "forecast", "symmetries", "verify", "data"])
def test_help_is_given_without_anything_heavy(command, tmp_path):
    assert imported_by([command, "--help"], tmp_path)[:2] == (0, [])
    assert not list(tmp_path.iterdir())


def test_a_model_is_traced_without_scikit_learn(tmp_path):
    code, imported, _ = imported_by(["symmetries", "model=convnet"], tmp_path)
    assert code == 0
    assert not {"sklearn", "numba", "matplotlib"} & set(imported)


def test_digits_are_those_of_scikit_learn(monkeypatch):
    from sklearn import datasets

    bunch = datasets.load_digits()
    x = torch.tensor(bunch.images, dtype=torch.float64).unsqueeze(1)
    wanted = (x - x.mean()) / x.std()
    table = np.loadtxt(_digits_file(), delimiter=",")
    np.testing.assert_array_equal(table, np.column_stack([bunch.data, bunch.target]))
    data = load_data(DigitsOptions())
    found = torch.cat([data.train.x, data.test.x])
    assert found.dtype == wanted.dtype
    assert {row.numpy().tobytes() for row in found} == {row.numpy().tobytes() for row in wanted}
    monkeypatch.setattr("neuralmech.data.builtin.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install scikit-learn"):
        load_data(DigitsOptions())


def test_names_that_are_checked_without_torch_are_those_that_there_are():
    assert tuple(parts.ACTIVATIONS) == options.ACTIVATIONS
    assert set(names.PRECISIONS) == set(precision.PRECISIONS)
