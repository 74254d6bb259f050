"""The laws' claims on digits over a grid of 24 cells of (η, λ, β, S), conv nets without and with BatchNorm."""

from itertools import product

import pytest

from conftest import config
from neuralmech.compare.measure.errors import compare_family
from neuralmech.record import open_record
from neuralmech.training.loop import train

GRID = list(product((0.01, 0.1), (0.0, 1e-3), (0.0, 0.5, 0.9), (16, 64)))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp64"])
@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("cell", GRID, ids=str)
def test_laws_predict_charges_in_every_cell(tmp_path, precision, norm, cell):
    lr, weight_decay, momentum, batch_size = cell
    chosen = config(
        model={"name": "convnet", "norm": norm, "width": 8, "depth": 3},
        data={"name": "digits", "batch_size": batch_size},
        optim={"lr": lr, "weight_decay": weight_decay, "momentum": momentum},
        train={"steps": 1000, "precision": precision},
    )
    train(chosen, tmp_path)
    with open_record(tmp_path) as record:
        for family in record.families:
            error = compare_family(record, family).table.pivot_table(index="site", columns="law", values="error")
            rounding = 2e-5 if precision == "fp32" else 1e-12
            assert error["discrete_broken"].max() <= rounding, family
            if family != "scale":
                assert error["discrete"].max() <= rounding, family
            assert error["modified_flow"].max() <= 5e-4, family
