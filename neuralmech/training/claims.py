"""Claims of symmetry, verified: those that a run is about to record, and those of a config's or a run's model."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

from torch import Tensor

from neuralmech.config import Config, resolve
from neuralmech.data import training_batches
from neuralmech.errors import UserError
from neuralmech.losses import Loss
from neuralmech.training.checkpoint import load_checkpoint
from neuralmech.training.process import patience
from neuralmech.training.recorded import recorded_config
from neuralmech.training.run import Run
from neuralmech.training.setup import Setup, prepare
from neuralmech.verification.certificate import Certificate, certify
from neuralmech.verification.names import CONDITIONS, check_conditions
from neuralmech.verification.quick import SAMPLES, NotVerifiedError, quickly_verified
from neuralmech.verification.sampling import Sampling
from neuralmech.verification.verify import Verification, verify


def check_claims(run: Run) -> None:
    """Verify every claim that will be recorded on samples of the first batch, so that no false one reaches a record.

    What was found is said in one line; so is what cannot be checked, and why; see `quickly_verified`.

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
    start, model = perf_counter(), run.setup.model
    x, y = _some(*run.batches(0), run.config.loss)
    try:
        table = quickly_verified(model, (x,), y, claims, run.config.loss, lambda twin: run.loss(twin, x, y))
    except NotVerifiedError as error:
        print(f"Claims of symmetry are not checked: {error}; neuralmech verify checks those of a run")
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


def _some(x: Tensor, y: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
    """As many samples as are enough, or all where none of these has a target that counts."""
    return (x[:SAMPLES], y[:SAMPLES]) if loss.weight_of(y[:SAMPLES]) > 0 else (x, y)


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
