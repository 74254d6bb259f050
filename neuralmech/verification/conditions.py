"""Conditions under which claims are checked: with and without eps, training and evaluation, every precision."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from neuralmech.verification.epsilon import WithoutEpsilon
from neuralmech.verification.precision import PRECISIONS, Precision, float64_throughout, own_precision, plain_attention

EPSILON = "a norm's eps"
IN_FLOAT64 = ("exact", "float64", "eval")


@dataclass(frozen=True)
class Condition:
    """A copy of a model, in the mode and type of a condition, and how it computes.

    Attributes
    ----------
    name
        ``exact``: float64 throughout, norms without eps. ``float64``: with their eps. ``own``: the precision asked
        for, or the model's. ``eval``: float64 and evaluation mode. Else a name of `PRECISIONS`.
    model, batch
        The copy, and what it takes, in the condition's type and on the model's device.
    precision
        How it computes.
    cause
        What breaks a symmetry more here than in float64 (under ``float64``: than under ``exact``).
    """

    name: str
    model: nn.Module
    batch: tuple[Tensor, ...]
    precision: Precision
    cause: str

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(iter(self.model.parameters())).device

    def in_float32(self) -> Condition:
        """Turn model and batch into float32, for models with operations that float64 lacks."""
        batch = tuple(x.float() if x.is_floating_point() else x for x in self.batch)
        return replace(self, model=copy.deepcopy(self.model).float(), batch=batch, precision=PRECISIONS["fp32"])

    @contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Context of every pass, forward and backward."""
        with plain_attention(), self.precision.matrix_units(self.device), ExitStack() as stack:
            if self.name in IN_FLOAT64 and self.precision.dtype == torch.float64:
                stack.enter_context(float64_throughout())
            yield

    @contextmanager
    def forward(self) -> Iterator[None]:
        """Context of forward passes, inside `arithmetic`."""
        with self.precision.products(self.device), ExitStack() as stack:
            if self.name == "exact":
                stack.enter_context(WithoutEpsilon())
            yield


def condition(
    name: str, model: nn.Module, batch: tuple[Shaped[Tensor, "*shape"], ...], precision: str | None = None
) -> Condition:
    """Prepare a copy of `model` for a condition; `precision` is that of ``own``, by default the model's."""
    if name in IN_FLOAT64:
        arithmetic = PRECISIONS["fp64"]
    elif name == "own" and precision is None:
        arithmetic = own_precision(model)
    else:
        arithmetic = PRECISIONS[precision or name if name == "own" else name]
    first = next(iter(model.parameters()))
    twin = copy.deepcopy(model).train()
    if name != "own" or precision is not None:
        twin = twin.double() if arithmetic.dtype == torch.float64 else twin.float()
    moved = tuple(x.to(first.device, arithmetic.dtype if x.is_floating_point() else None) for x in batch)
    causes = {"exact": "", "float64": EPSILON, "eval": _cause_in_eval(model)}
    cause = causes[name] if name in causes else arithmetic.cause_on(first.device)
    out = Condition(name, twin, moved, arithmetic, cause)
    if name == "eval":
        _settle(out)
        twin.eval()
    return out


@torch.no_grad()
def nudge(model: nn.Module, by: float, seed: int) -> None:
    """Move what is trained by about `by` of its size, parameters that are zero by that of all the others."""
    generator = torch.Generator().manual_seed(seed)
    trained = [p for p in model.parameters() if p.requires_grad and p.numel()]
    usual = torch.cat([p.reshape(-1).double() for p in trained]).square().mean().sqrt()
    for p in trained:
        size = p.double().square().mean().sqrt()
        p += (by * (size if size > 0 else usual) * torch.randn(p.shape, generator=generator).to(p.device)).to(p)


def _with_statistics(model: nn.Module) -> list[nn.modules.batchnorm._NormBase]:
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._NormBase)]
    return [norm for norm in norms if norm.running_mean is not None]


def _cause_in_eval(model: nn.Module) -> str:
    return "running statistics" if _with_statistics(model) else "evaluation mode"


def _settle(condition: Condition) -> None:
    """Norms that have seen no batch take the statistics of this one, as a long training on it would give them."""
    fresh = [norm for norm in _with_statistics(condition.model) if _is_fresh(norm)]
    momenta = [norm.momentum for norm in fresh]
    if not fresh:
        return
    for norm in fresh:
        norm.momentum = None  # a plain average of all batches
    with torch.no_grad(), torch.random.fork_rng(), condition.arithmetic():
        condition.model(*condition.batch)
    for norm, momentum in zip(fresh, momenta, strict=True):
        norm.momentum = momentum


def _is_fresh(norm: nn.modules.batchnorm._NormBase) -> bool:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return not norm.num_batches_tracked and not norm.running_mean.any() and bool((norm.running_var == 1).all())
