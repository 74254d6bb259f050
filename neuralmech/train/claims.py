"""Check what a run is about to record of a fresh model, so that no false claim reaches a record."""

from __future__ import annotations

import copy
from dataclasses import replace
from time import perf_counter

import pandas as pd
import torch
from torch import Tensor

from neuralmech.errors import UserError
from neuralmech.losses import Loss
from neuralmech.symmetry.group import Symmetries
from neuralmech.train.run import Run
from neuralmech.train.state import random_state_kept
from neuralmech.verification.verify import verify
from neuralmech.words import first_line

SAMPLES = 8  # of the first batch
SECONDS = 0.5  # for the finite transformations and Hessians, which are those of some charges
MOST = 16  # charges, at most
PER_CHARGE = 12  # gradients' time that one of them takes: four losses, a Hessian's product, all in float64
SLOW_SECONDS = 3.0  # a gradient that takes longer, or a model that is larger, is left to `neuralmech verify`
LARGE = 50_000_000
CANNOT = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def check_claims(run: Run) -> None:
    """Verify every claim that will be recorded on samples of the first batch, in float64 and on copies.

    The gradient's constraint is checked of every charge, the finite transformation and the Hessian's of as many as half
    a second is enough for. What was found is said in one line; so is what cannot be checked, and why. The run does not
    notice.

    Raises
    ------
    UserError
        If a claim fails.
    """
    claims, families = run.setup.symmetries, run.config.track.families
    if families is not None:
        claims = replace(claims, families={n: f for n, f in claims.families.items() if n in families})
    if not run.config.train.verify or not claims.families:
        return
    start = perf_counter()
    x, y = _some(*run.batches(0), run.config.loss)
    with random_state_kept(run.setup.device):
        try:
            table = _verified(run, claims, x, y)
        except CANNOT as error:  # what a model does in float64, or on a copy: it may be trained all the same
            _not_checked(first_line(error))
            return
    if table is None:
        return
    failed = table[~table["holds"].astype(bool)]
    if len(failed):
        kept = [name for name in claims.families if name not in set(failed["family"])]
        listed = ", ".join(f"{family} {site!r}" for family, site in zip(failed["family"], failed["site"], strict=True))
        instead = f"track.families=[{','.join(kept)}] leaves them out, " if kept else ""
        raise UserError(
            f"{len(failed)} claims of symmetry do not hold for this model, and nothing is recorded: {listed}; "
            f"{instead}train.verify=false records them all the same; please report the model"
        )
    charges = sum(len(family) for family in claims.families.values())
    how = "; ".join([f"{perf_counter() - start:.1f} s", *filter(None, table["exact_cause"].unique())])
    print(f"Checked {charges:,} claims of symmetry on the first batch, which hold ({how})")


def _verified(run: Run, claims: Symmetries, x: Tensor, y: Tensor) -> pd.DataFrame | None:
    """Table of the claims, those that hold and those that fail; None if they were not checked, which was said."""
    parameters = sum(p.numel() for p in run.setup.model.parameters())
    if parameters > LARGE:
        return _not_checked(f"the model has {parameters:,} parameters")
    seconds = _gradient_time(run, x, y)
    if seconds > SLOW_SECONDS:
        return _not_checked(f"a gradient takes {seconds:.1f} s")
    most = min(MOST, max(1, int(SECONDS / (PER_CHARGE * seconds))))
    table = verify(run.setup.model, x, y, claims, run.config.loss, sample=1, most=most, conditions=("exact",)).table
    if not table["exact_gradient"].notna().all():
        return _not_checked("the loss or its gradient is not finite")
    if not table["holds"].all() and not _is_function(run, x, y):
        return _not_checked("the model's loss changes from call to call at the same parameters")
    return table


def _some(x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """As many samples as are enough, or all where none of these has a target that counts."""
    return (x[:SAMPLES], y[:SAMPLES]) if loss.weight_of(y[:SAMPLES]) > 0 else (x, y)


def _gradient_time(run: Run, x: Tensor, y: Tensor) -> float:
    """Seconds that a gradient takes, of a copy."""
    twin = copy.deepcopy(run.setup.model)
    start = perf_counter()
    loss = run.loss(twin, x, y)
    trained = [p for p in twin.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, trained, allow_unused=True)
    float(sum(g.sum() for g in found if g is not None))  # waits for the device
    return perf_counter() - start


@torch.no_grad()
def _is_function(run: Run, x: Tensor, y: Tensor) -> bool:
    """Whether a copy, called again with the same random numbers, has the same loss."""
    twin, losses = copy.deepcopy(run.setup.model), []
    for _ in range(2):
        with random_state_kept(run.setup.device):
            losses.append(float(run.loss(twin, x, y)))
    return losses[0] == losses[1]


def _not_checked(reason: str) -> None:
    print(f"Claims of symmetry are not checked: {reason}; neuralmech verify checks those of a run")
