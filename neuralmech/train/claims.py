"""Claims of symmetry, verified: those that a run is about to record, and those of a config's or a run's model."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from neuralmech.config import Config, resolve
from neuralmech.data import training_batches
from neuralmech.data.draws import generators_kept
from neuralmech.errors import UserError
from neuralmech.losses import Loss
from neuralmech.symmetry.group import Symmetries
from neuralmech.train.checkpoint import load_checkpoint
from neuralmech.train.process import patience
from neuralmech.train.recorded import recorded_config
from neuralmech.train.run import Run
from neuralmech.train.setup import Setup, prepare
from neuralmech.verification.certificate import Certificate, certify
from neuralmech.verification.conditions import CONDITIONS, check_conditions
from neuralmech.verification.sampling import Sampling
from neuralmech.verification.verify import Verification, verify
from neuralmech.words import first_line

SAMPLES = 8  # of the first batch
SECONDS = 0.5  # for the finite transformations and Hessians, which are those of some charges
MOST = 16  # charges, at most
PER_CHARGE = 12  # gradients' time that one of them takes: four losses, a Hessian's product, all in float64
SLOW_SECONDS = 3.0  # a gradient that takes longer, or a model that is larger, is left to `neuralmech verify`
LARGE = 50_000_000
CANNOT = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def check_claims(run: Run) -> None:
    """Verify every claim that will be recorded on samples of the first batch, so that no false one reaches a record.

    All is done in float64 and on copies: the run does not notice. The gradient's constraint is checked of every charge,
    the finite transformation and the Hessian's of as many as half a second is enough for. What was found is said in one
    line; so is what cannot be checked, and why.

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
    with generators_kept(run.setup.device):
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
    sampling = Sampling(per_site=1, most=most)
    table = verify(run.setup.model, x, y, claims, run.config.loss, sampling, conditions=("exact",)).table
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
        with generators_kept(run.setup.device):
            losses.append(float(run.loss(twin, x, y)))
    return losses[0] == losses[1]


def _not_checked(reason: str) -> None:
    print(f"Claims of symmetry are not checked: {reason}; neuralmech verify checks those of a run")


def certified(setup: Setup, config: Config) -> Certificate:
    """Count all conservation laws of a config's model, with its loss, on batches of the shape of its data's."""
    with closing(training_batches(setup.data, config.data, config.seed)) as batches:
        x, y = _some(*batches(0), config.loss)
    with patience("counting conservation laws"):
        return certify(setup.model, x, y, setup.symmetries, config.loss, seed=config.seed)


def verify_fresh(raw: Mapping[str, Any], sample: int, conditions: tuple[str, ...] = CONDITIONS) -> Verification:
    """Verify the model that a config describes, as initialised."""
    check_conditions(conditions)
    return _verify(raw, None, None, sample, conditions)


def verify_run(
    folder: Path,
    step: int | None,
    sample: int,
    conditions: tuple[str, ...] = CONDITIONS,
    code: Mapping[str, Mapping[str, Any]] | None = None,
) -> Verification:
    """Verify a run's model at one of its checkpoints.

    Raises
    ------
    RecordError, UserError
        If there is no such run, checkpoint or condition, or the run's model, data or loss are a user's own code, which
        is never taken from a record: the user gives ``_target_`` and its arguments in `code`, by ``model``, ``data``
        and ``loss``.
    """
    check_conditions(conditions)
    return _verify(recorded_config(folder, code or {}), folder, step, sample, conditions)


def _verify(
    raw: Mapping[str, Any], folder: Path | None, step: int | None, sample: int, conditions: tuple[str, ...]
) -> Verification:
    config = resolve(raw)
    setup = prepare(config)
    if folder is not None:
        load_checkpoint(folder / "checkpoints", setup.model, step)
    with closing(training_batches(setup.data, config.data, config.seed)) as batches:
        x, y = batches(0)
    sampling = Sampling(per_site=sample, seed=config.seed)
    return verify(setup.model, x, y, setup.symmetries, config.loss, sampling, conditions, config.train.precision)
