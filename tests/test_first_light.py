"""The claims of the first experiment, on real digits, with conv nets without and with BatchNorm.

Where a bound is wider than rounding, its cause stands beside it.
"""

import pytest

from conftest import config
from neuralmech.compare.measure.errors import compare_family
from neuralmech.record import open_record
from neuralmech.training.loop import train

pytestmark = pytest.mark.usefixtures("found_once")

CELLS = [(0.1, 0.0, 0.0), (0.1, 1e-3, 0.0), (0.1, 1e-3, 0.9), (0.01, 5e-4, 0.99)]


# All of float32's cells take a minute, and `test_grid.py` has them, too.
CASES = [
    pytest.param(precision, cell, id=f"{precision}-{cell}", marks=[pytest.mark.slow] if slow else [])
    for cell in CELLS
    for precision, slow in (("fp64", False), ("fp32", cell != CELLS[2]))
]


@pytest.mark.parametrize(("precision", "cell"), CASES)
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_laws_predict_charges_on_digits(tmp_path, precision, norm, cell):
    lr, weight_decay, momentum = cell
    chosen = config(
        model={"name": "convnet", "norm": norm, "width": 8, "depth": 3},
        data={"name": "digits", "batch_size": 64},
        optim={"lr": lr, "weight_decay": weight_decay, "momentum": momentum},
        train={"steps": 2000 if precision == "fp32" else 300, "precision": precision},
    )
    train(chosen, tmp_path)
    with open_record(tmp_path) as record:
        error = {
            f: compare_family(record, f).table.pivot_table(index="site", columns="law", values="error")
            for f in record.families
        }
    assert set(error) == ({"translation", "rescale"} if norm == "none" else {"translation", "scale", "rescale"})
    for family, table in error.items():
        # Rounding of parameters and gradients: 2⁻²⁴ per step, adding up over 2,000 steps.
        rounding = 2e-5 if precision == "fp32" else 1e-12
        assert table["discrete_broken"].max() <= rounding, family
        if family != "scale":  # BatchNorm's eps breaks the scale symmetry; the residual above explains it
            assert table["discrete"].max() <= rounding, family
        assert table["modified_flow"].max() <= 2e-3, family
    if momentum == 0:
        assert error["rescale"]["first_order_flow"].max() <= 1e-4
    assert error["rescale"]["gradient_flow"].min() > 1e-2  # visibly wrong
