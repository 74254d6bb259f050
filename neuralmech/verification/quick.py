"""Verify claims within a second or so, before something relies on them; or say why that cannot be done."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

import pandas as pd
import torch
from jaxtyping import Float64, Shaped
from torch import Tensor, nn

from neuralmech.data.draws import generators_kept
from neuralmech.losses import Loss
from neuralmech.symmetry.group import Symmetries
from neuralmech.verification.sampling import Sampling
from neuralmech.verification.verify import verify
from neuralmech.words import first_line

SAMPLES = 8  # of a batch
SECONDS = 0.5  # for the finite transformations and Hessians, which are those of some charges
MOST = 16  # charges, at most
PER_CHARGE = 12  # gradients' time that one of them takes: four losses, a Hessian's product, all in float64
SLOW_SECONDS = 3.0  # a gradient that takes longer, or a model that is larger, is left to `neuralmech verify`
LARGE = 50_000_000
CANNOT = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class NotVerifiedError(Exception):
    """Claims that cannot be verified quickly; the message says why."""


def quickly_verified(
    model: nn.Module,
    inputs: tuple[Shaped[Tensor, "*shape"], ...],
    targets: Shaped[Tensor, "batch ..."],
    claims: Symmetries,
    loss: Loss,
    value: Callable[[nn.Module], Float64[Tensor, ""]],
) -> pd.DataFrame:
    """Table of the claims, as `verify` has it, in exact arithmetic.

    All is done in float64 and on copies: nobody notices. The gradient's constraint is checked of every charge, the
    finite transformation and the Hessian's of as many as half a second is enough for.

    Parameters
    ----------
    value
        The loss that is trained, of a copy of the model, on these inputs and targets.

    Raises
    ------
    NotVerifiedError
        If the model is too large or slow, or its loss is no function of the parameters or not finite.
    """
    with generators_kept(next(iter(model.parameters())).device), _told():
        parameters = sum(p.numel() for p in model.parameters())
        if parameters > LARGE:
            raise NotVerifiedError(f"the model has {parameters:,} parameters")
        seconds = _gradient_time(model, value)
        if seconds > SLOW_SECONDS:
            raise NotVerifiedError(f"a gradient takes {seconds:.1f} s")
        most = min(MOST, max(1, int(SECONDS / (PER_CHARGE * seconds))))
        sampling = Sampling(per_site=1, most=most)
        table = verify(model, inputs, targets, claims, loss, sampling, conditions=("exact",)).table
        if not table["exact_gradient"].notna().all():
            raise NotVerifiedError("the loss or its gradient is not finite")
        if not table["holds"].all() and not _is_function(model, value):
            raise NotVerifiedError("the model's loss changes from call to call at the same parameters")
        return table


@contextmanager
def _told() -> Iterator[None]:
    """What a model does in float64, or on a copy, keeps claims from being verified: it may be trained all the same."""
    try:
        yield
    except CANNOT as error:
        raise NotVerifiedError(first_line(error)) from error


def _gradient_time(model: nn.Module, value: Callable[[nn.Module], Tensor]) -> float:
    """Seconds that a gradient takes, of a copy."""
    twin = copy.deepcopy(model)
    start = perf_counter()
    loss = value(twin)
    trained = [p for p in twin.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, trained, allow_unused=True)
    float(sum(g.sum() for g in found if g is not None))  # waits for the device
    return perf_counter() - start


@torch.no_grad()
def _is_function(model: nn.Module, value: Callable[[nn.Module], Tensor]) -> bool:
    """Whether a copy, called again with the same random numbers, has the same loss."""
    twin, losses = copy.deepcopy(model), []
    device = next(iter(model.parameters())).device
    for _ in range(2):
        with generators_kept(device):
            losses.append(float(value(twin)))
    return losses[0] == losses[1]
