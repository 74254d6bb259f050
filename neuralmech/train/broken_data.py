"""Data that hold NaN or infinity: named before a run, or by a run that they end."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from neuralmech.data import named
from neuralmech.data.parts import Samples
from neuralmech.errors import UserError
from neuralmech.outputs import output_of
from neuralmech.train.run import Run


def check_data(run: Run) -> None:
    """Raise a `UserError` for data in memory that no loss can be had of.

    Inputs that are not finite, of which the model's outputs are not either; no target that counts.
    """
    data, key = run.setup.data, named(run.config.data)
    for name, part in (("training", data.train), ("held-out", data.test)):
        if not isinstance(part, Samples):
            continue
        broken = _broken(part.x, part.y)
        if len(broken) and not _is_finite(run, part.x[broken[:2]]):
            raise UserError(
                f"{key}: {len(broken)} of {len(part)} {name} samples hold NaN or inf, the first of them "
                f"sample {int(broken[0])}; mend them or leave them out"
            )
        if not run.config.loss.weight_of(part.y) > 0:
            raise UserError(f"{key}: no target of the {name} samples counts; give some that do")


def remedy(run: Run, step: int) -> str:
    """What to do about a run that is not finite at a step: to mend its data if it met some that are not, or else η."""
    for k in range(max(step - 1, 0), step + 1):
        broken = _broken(*run.batches(k))
        if len(broken):
            number, key = int(run.batches.samples(k)[broken[0]]), named(run.config.data)
            return f"training sample {number} of {key}, met at step {k}, holds NaN or inf: mend the data"
    return "lower optim.lr"


def _broken(x: Tensor, y: Tensor) -> Tensor:
    """Numbers of the samples that hold some that are not finite."""
    wrong = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for values in (x, y):
        if values.is_floating_point():
            wrong |= ~values.isfinite().flatten(1).all(dim=1) if values.dim() > 1 else ~values.isfinite()
    return wrong.nonzero().flatten()


@torch.no_grad()
def _is_finite(run: Run, x: Tensor) -> bool:
    """Whether a copy of the model takes such samples all the same, as those that are made for missing values do."""
    twin = copy.deepcopy(run.setup.model).eval()
    return bool(output_of(twin(run.setup.data.inputs(x))).isfinite().all())
