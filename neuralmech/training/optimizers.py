"""Optimisers of a run: PyTorch's on the flat vector, what PyTorch lacks, and a class of the user's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from neuralmech import rules
from neuralmech.config import OptimConfig, OwnRuleConfig, RuleConfig
from neuralmech.errors import UserError
from neuralmech.targets import call, locate
from neuralmech.words import first_line

Params = Sequence[Mapping[str, Any]]  # groups of parameters, as PyTorch's optimisers take them


class SGDW(torch.optim.SGD):
    """SGD with decoupled weight decay: θ ← (1 − ηλ)θ − ηu, and λ does not enter the momentum buffer.

    Source: Loshchilov & Hutter 2019 (Decoupled Weight Decay Regularization), algorithm 1, with PyTorch's
    convention that λ is multiplied by the learning rate. ``param_groups`` holds λ as ``decay``.
    """

    def __init__(self, params: Any, *, decay: float, **options: Any) -> None:
        super().__init__(params, weight_decay=0.0, **options)
        for group in self.param_groups:
            group["decay"] = decay

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Shrink, then step; neither if the gradient was not finite."""
        skip = getattr(self, "found_inf", None)  # what GradScaler says, on the device
        for group in self.param_groups:
            if group["decay"]:
                shrink = 1 - group["lr"] * group["decay"]
                torch._foreach_mul_(group["params"], shrink if skip is None else torch.where(skip > 0, 1.0, shrink))
        return super().step(closure)


class PolarMuon(torch.optim.Muon):
    """Muon with the polar factor UVᵀ itself, by singular values in the parameters' own precision.

    PyTorch's iterates in bfloat16 towards something like it; all else is the same. θ ← (1 − ηλ)θ − η·0.2·√max(m, n)·UVᵀ
    with USVᵀ the momentum, under Nesterov mixed with the gradient; of a momentum of zero the factor is zero.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take a step."""
        for group in self.param_groups:
            beta, shrink = group["momentum"], 1 - group["lr"] * group["weight_decay"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                buffer = state.setdefault("momentum_buffer", torch.zeros_like(p.grad)).lerp_(p.grad, 1 - beta)
                update = p.grad.lerp(buffer, beta) if group["nesterov"] else buffer
                p.mul_(shrink).add_(polar(update), alpha=-group["lr"] * 0.2 * max(p.shape) ** 0.5)
        return None


def polar(matrix: Float[Tensor, "*stack rows columns"]) -> Float[Tensor, "*stack rows columns"]:
    """UVᵀ of USVᵀ; directions with less than √ε of the largest singular value count as zero.

    Where a symmetry leaves none, rounding leaves some: gradients of a fitted softmax sum to zero over the classes up to
    10⁻¹⁶ (float64) of their terms, which may be 10⁻¹⁰ of their sum over the batch. UVᵀ would make that 1.
    """
    u, s, v = torch.linalg.svd(matrix, full_matrices=False)
    kept = s > s[..., :1] * torch.finfo(matrix.dtype).eps ** 0.5
    return (u * kept) @ v


class MatricesApart(torch.optim.Optimizer):
    """Two rules as one: `first` for some groups, `second` for others. Their state and groups are this one's."""

    def __init__(self, first: torch.optim.Optimizer, second: torch.optim.Optimizer) -> None:
        self._parts, self._split = (first, second), len(first.param_groups)
        super().__init__([*first.param_groups, *second.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take a step with both."""
        groups = self.param_groups[: self._split], self.param_groups[self._split :]
        for part, own in zip(self._parts, groups, strict=True):
            part.param_groups, part.state = own, self.state  # a checkpoint that is loaded brings new ones
            part.step()
        return None


def build(config: OptimConfig, groups: Params) -> torch.optim.Optimizer:
    """PyTorch's SGD, SGDW, Adam or AdamW, fused, for flat vectors."""
    sgd = {"momentum": config.momentum, "dampening": config.dampening, "nesterov": config.nesterov, "fused": True}
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, weight_decay=config.weight_decay, **sgd)  # type: ignore[arg-type]
    if config.name == "sgdw":
        return SGDW(groups, lr=config.lr, decay=config.weight_decay, **sgd)
    kind = torch.optim.Adam if config.name == "adam" else torch.optim.AdamW
    return kind(groups, amsgrad=config.amsgrad, fused=True, **_of_adam(config))  # type: ignore[arg-type]


def build_muon(config: OptimConfig, matrices: Params, rest: Params) -> torch.optim.Optimizer:
    """Muon for matrices (m × n), AdamW for the rest; each may be empty."""
    kind = PolarMuon if config.polar == "exact" else torch.optim.Muon
    options = {"momentum": config.momentum, "nesterov": config.nesterov, "adjust_lr_fn": "match_rms_adamw"}
    parts = []
    if matrices:
        parts.append(kind(matrices, lr=config.lr, weight_decay=config.weight_decay, **options))  # type: ignore[arg-type]
    if rest:
        parts.append(torch.optim.AdamW(rest, fused=True, **_of_adam(config)))  # type: ignore[arg-type]
    return MatricesApart(*parts) if len(parts) == 2 else parts[0]


def _of_adam(config: OptimConfig) -> dict[str, Any]:
    betas = (config.betas[0], config.betas[1])
    return {"lr": config.lr, "betas": betas, "eps": config.eps, "weight_decay": config.weight_decay}


def build_own(config: OwnRuleConfig, groups: Params, decay: float | None = None) -> torch.optim.Optimizer:
    """The user's class on groups of parameters, with ``lr`` and, where it knows it, ``weight_decay``.

    Raises
    ------
    UserError
        If it cannot be called so, gives no optimiser, or needs a closure.
    """
    decay = config.weight_decay if decay is None else decay
    takes = inspect.signature(locate("optim", config.target)).parameters
    named = "weight_decay" in takes or any(p.kind is p.VAR_KEYWORD for p in takes.values())
    if decay and not named:
        raise UserError(f"optim.weight_decay={decay}: {config.target} takes none; use 0, or another rule")
    arguments = {"lr": config.lr, **({"weight_decay": decay} if "weight_decay" in takes or decay else {})}
    copied = [dict(group) for group in groups]
    made = call("optim", config.target, {**config.arguments, next(iter(takes), "params"): copied, **arguments})
    if not isinstance(made, torch.optim.Optimizer):
        raise UserError(
            f"optim._target_={config.target} gives a {type(made).__name__}, not a torch.optim.Optimizer; name its class"
        )
    closure = inspect.signature(type(made).step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        what = "optim.sam_rho evaluates the gradient once more itself" if config.sam_rho else "a step has one gradient"
        raise UserError(
            f"optim._target_={config.target} needs a closure, and {what}; use a rule that steps without one"
        )
    return made


def decays_apart(config: OwnRuleConfig) -> bool:
    """Whether the rule's weight decay is decoupled, see `neuralmech.rules.decays_apart`.

    Raises
    ------
    UserError
        If the rule cannot take a step.
    """
    if not config.weight_decay:
        return False
    return rules.decays_apart(
        lambda p, decay: build_own(config, [{"params": [p]}], decay), config.lr, lambda made: step(made, config)
    )


def rounds_decay(config: RuleConfig, like: Float[Tensor, "*shape"]) -> bool:
    """Whether decoupled weight decay rounds 1 − ηλ, see `neuralmech.rules.rounds_decay`."""
    return rules.rounds_decay(lambda p, _: build_any(config, [{"params": [p]}]), config.lr, config.weight_decay, like)


def build_any(config: RuleConfig, groups: Params) -> torch.optim.Optimizer:
    """The rule of a config on groups of matrices."""
    if isinstance(config, OwnRuleConfig):
        return build_own(config, groups)
    assert isinstance(config, OptimConfig)
    return build_muon(config, groups, []) if config.name == "muon" else build(config, groups)


def step(optimizer: torch.optim.Optimizer, config: object) -> None:
    """Take a step; what a class of the user's own raises becomes a `UserError`."""
    if not isinstance(config, OwnRuleConfig):
        optimizer.step()
        return
    try:
        optimizer.step()
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a user's code raises
        kind = type(error).__name__
        raise UserError(f"optim._target_={config.target} cannot take a step ({kind}: {first_line(error)})") from error
