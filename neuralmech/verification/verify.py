"""Check every claimed symmetry on a real batch: finite transformation, gradient and Hessian constraints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pandas as pd
from jaxtyping import Shaped
from torch import Tensor, nn

from neuralmech.discovery.discover import find_symmetries
from neuralmech.errors import UserError
from neuralmech.losses import Loss, LossLike, as_loss
from neuralmech.symmetry.group import Symmetries
from neuralmech.verification.conditions import IN_FLOAT64, Condition, condition, nudge
from neuralmech.verification.names import CONDITIONS, check_conditions
from neuralmech.verification.precision import lacks_type
from neuralmech.verification.probe import Probe
from neuralmech.verification.sampling import USUAL, Choice, Sampling, choose
from neuralmech.verification.verdict import TOLERANCE, Column, measure, row
from neuralmech.words import first_line

Task = tuple[Tensor, Loss, int]  # targets, loss and seed
COARSE = 1e5  # what float32 rounds beside float64, with what gradients add to it
NEARBY = 0.3  # relative distance of the parameters that are tried where rounding decides at those given
CLEARLY = 10.0  # a change of the loss is one of a claim, if it is so many times that of rounding


@dataclass(frozen=True)
class Verification:
    """How well each site's claims hold; the worst charge stands for its site.

    Attributes
    ----------
    table
        One row per family and site: ``charges``, ``sampled`` (charges whose finite transformation and Hessian
        were checked; the gradient is checked for all), then for each condition C (see `verify`) the worst
        ``C_finite``, ``C_gradient`` and ``C_hessian``, and ``C_cause``, which names what breaks the symmetry
        there; ``cause`` is all of these; ``holds`` is the verdict, under ``exact``. NaN: not checked, where
        the whole column is, for the reason in ``C_cause``.
    """

    table: pd.DataFrame

    @property
    def passed(self) -> bool:
        """Whether every claim holds in exact arithmetic."""
        return bool(self.table["holds"].all()) if len(self.table) else True

    @property
    def worst(self) -> float:
        """Largest violation of the gradient constraint in exact arithmetic."""
        return float(self.table["exact_gradient"].max()) if len(self.table) else 0.0


def verify(
    model: nn.Module,
    inputs: Shaped[Tensor, "batch ..."] | tuple[Shaped[Tensor, "*shape"], ...],
    targets: Shaped[Tensor, "batch ..."],
    symmetries: Symmetries | None = None,
    loss: LossLike = "cross_entropy",
    sampling: Sampling = USUAL,
    conditions: tuple[str, ...] = CONDITIONS,
    precision: str | None = None,
) -> Verification:
    r"""Verify claims at the model's present parameters, on one batch.

    1. finite: |L(ψ(θ, α)) − L(θ)| / |L(θ)| for several α of both signs;
    2. gradient: |⟨g, ∂_αψ⟩| / (|g| |∂_αψ|);
    3. Hessian: |H ∂_αψ + (∂_θ∂_αψ) g| relative to the size of H and g along such directions, by
       Hessian-vector products (Neural Mechanics, Kunin et al. 2021, section 3).

    Parameters
    ----------
    model
        Left as it is; copies are used.
    inputs
        A batch of what the model takes.
    targets
        Those of the batch, as the loss takes them.
    symmetries
        Claims to check; by default what `find_symmetries` finds.
    loss
        ``cross_entropy``, ``mse``, ``bce``, one of `neuralmech.losses`, or a function of (outputs, targets).
    sampling
        Which charges get the finite and Hessian checks: by default four of each site, at random.
    conditions
        Besides ``exact`` (training mode, float64 throughout, no eps in norms; in float32 where an operation has no
        float64 kernel; at parameters some 30 % away where rounding alone decides on the loss: ``exact_cause`` says
        so), which decides: ``float64`` (with their eps), ``own`` (with eps, in `precision`), ``eval`` (float64,
        evaluation mode: the running statistics of the model or, where it has seen no batch, this batch's); and any
        precision by name.
    precision
        Of ``own``: ``fp32``, ``fp64``, ``tf32``, ``bf16`` or ``fp16`` (autocast), by default the model's. Where
        there are no units for TF32, its rounding is emulated; a precision that an operation lacks is not measured.

    Raises
    ------
    UserError
        If the claims are not about this model's parameters, there is no such condition or precision, or a layer
        rewrites its weight in the forward pass (an embedding's ``max_norm``).
    """
    check_conditions(conditions, precision)
    _refuse_writing(model)
    batch, criterion = inputs if isinstance(inputs, tuple) else (inputs,), as_loss(loss)
    claims = symmetries or find_symmetries(model, batch, criterion, targets)
    if list(claims.shapes) != [name for name, _ in model.named_parameters()]:
        raise UserError("symmetries: they name other parameters than the model has; find them for this model")
    prepare = partial(condition, model=model, batch=batch, precision=precision)
    chosen = choose(claims, sampling)
    return Verification(_table(prepare, (targets, criterion, sampling.seed), claims, chosen, conditions))


def _table(
    prepare: Callable[[str], Condition],
    task: Task,
    claims: Symmetries,
    chosen: list[Choice],
    conditions: tuple[str, ...],
) -> pd.DataFrame:
    """A row for each choice of charges, with columns for each condition, which `prepare` makes by its name."""

    def column(name: str, charges: list[Choice]) -> Column:
        return _column(partial(prepare, name), task, claims, charges)

    columns = {"exact": _exact(prepare("exact"), task, claims, chosen)}
    columns |= {name: column(name, chosen) for name in dict.fromkeys(conditions) if name != "exact"}
    gradients = [entry._replace(sampled=entry.sampled[:0]) for entry in chosen]  # enough to tell what eps breaks
    reference = "float64" if len(columns) > 1 else "exact"
    with_eps = columns.get(reference) or column(reference, gradients)
    return pd.DataFrame([row(entry, columns, with_eps.found or {}) for entry in chosen])


def _refuse_writing(model: nn.Module) -> None:
    """Raise a `UserError` for layers that write to their weight in the forward pass: there is no loss at fixed θ."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None:
            layer = name or type(module).__name__
            raise UserError(
                f"verify: {layer} has max_norm={module.max_norm:g}, which rewrites its weight in the "
                "forward pass, so that no loss belongs to given parameters; use max_norm=None"
            )


def _exact(where: Condition, task: Task, claims: Symmetries, chosen: list[Choice]) -> Column:
    """Violations in exact arithmetic, or as near to it as this model can be computed, which `cause` says."""
    limits, causes = TOLERANCE, []
    try:
        probe = Probe(where, *task)
    except RuntimeError as error:
        if not lacks_type(error):
            raise
        causes.append(f"in float32, because float64 cannot be had ({first_line(error)})")
        where, limits = where.in_float32(), {test: COARSE * limit for test, limit in TOLERANCE.items()}
        probe = Probe(where, *task)
    noise = probe.rounding()
    if CLEARLY * noise > limits["finite"]:  # a norm of what cancels, for instance: its values are rounding alone
        causes.append(f"at parameters {NEARBY:.0%} away: at these, rounding alone changes the loss by {noise:.0e}")
        nudge(where.model, NEARBY, task[2])
        probe = Probe(where, *task)
        limits = {
            **limits,
            "finite": max(limits["finite"], min(CLEARLY * probe.rounding(), COARSE * TOLERANCE["finite"])),
        }
    return Column(measure(probe, claims, chosen), "; ".join(causes), limits)


def _column(prepare: Callable[[], Condition], task: Task, claims: Symmetries, chosen: list[Choice]) -> Column:
    """Violations under a condition; none where the model has an operation that is not there in its type."""
    where = None
    try:
        where = prepare()
        return Column(measure(Probe(where, *task), claims, chosen), where.cause)
    except RuntimeError as error:
        asked_for = where is not None and where.precision.autocast is None and where.name not in IN_FLOAT64
        if asked_for or not lacks_type(error):
            raise
        return Column(None, f"not measured on {task[0].device.type}: {first_line(error)}")
