"""What can be said of an optimiser by its class, its groups and by trying it: whose laws hold, and how it decays."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from neuralmech.record.schema import METRIC_DECAY_SIGNALS, METRIC_SIGNALS, NESTEROV_SIGNAL

# Classes whose laws are known, whoever chose them, and what these are called.
_KNOWN: dict[type, str] = {torch.optim.SGD: "sgd", torch.optim.Adam: "adam", torch.optim.AdamW: "adamw"}
FLAT = ("sgd", "sgdw", "adam", "adamw")  # act on each entry alone, so that the flat vector will do
DECOUPLED = ("sgdw", "adamw", "muon")

Make = Callable[[nn.Parameter, float], Optimizer]  # an optimiser of one parameter with that weight decay
Take = Callable[[Optimizer], object]


def signals_of(
    kinds: Collection[str], *, nesterov: bool, decoupled: bool, differs: bool, metric: bool | None = None
) -> tuple[str, ...]:
    """What laws and accounts of rules need to have recorded besides the usual.

    Parameters
    ----------
    kinds
        Names of the rules that move parameters.
    nesterov, decoupled
        Whether SGD's momentum is Nesterov's, and weight decay apart from the rule's own update.
    differs
        Whether parameters decay at different rates.
    metric
        Whether there is Adam's metric; by default where all rules are Adam.

    Examples
    --------
    >>> signals_of({"sgd"}, nesterov=True, decoupled=False, differs=False)
    ('drive_buffer',)
    """
    if set(kinds) <= {"sgd", "sgdw"}:
        own = (NESTEROV_SIGNAL,) if nesterov or (differs and decoupled) else ()
        return (*own, *(("decay",) if differs else ()))
    metric = set(kinds) <= {"adam", "adamw"} if metric is None else metric
    in_metric = METRIC_DECAY_SIGNALS if differs and metric and decoupled else ()
    return ("rule_work", *(METRIC_SIGNALS if metric else ()), *(("decay",) if differs else ()), *in_metric)


def name_of(optimizer: Optimizer, group: int = 0) -> str:
    """Whose laws hold for a group of an optimiser that somebody chose by its class; the class's name if nobody's do."""
    options = optimizer.param_groups[group]
    name = "" if options.get("maximize") else _KNOWN.get(type(optimizer), "")
    if name in ("adam", "adamw"):
        return "adamw" if options.get("decoupled_weight_decay", name == "adamw") else "adam"
    return name or type(optimizer).__name__


def numbers_of(group: Mapping[str, Any]) -> dict[str, object]:
    """Options of a group that are numbers, or some of them, but for the learning rate and weight decay."""
    lists = {k: list(v) if isinstance(v, (tuple, list)) else v for k, v in group.items() if k != "params"}
    found = {k: v if isinstance(v, list) else [v] for k, v in lists.items() if k not in ("lr", "weight_decay")}
    return {k: lists[k] for k, values in found.items() if all(isinstance(v, (int, float)) for v in values)}


def decays_apart(make: Make, lr: float, take: Take = lambda optimizer: optimizer.step()) -> bool:
    """Whether a rule's weight decay is decoupled: with it, a step differs from one without it by −ηλθ, or by −ηλθ′.

    Found by letting both take some steps from the same parameters with the same gradients; those in which a rule only
    prepares itself do not count.
    """
    shrink = 0.1  # far from what rounds away, whatever λ is
    generator = torch.Generator().manual_seed(0)
    theta, *gradients = (torch.randn(4, 3, dtype=torch.float64, generator=generator) for _ in range(5))
    pair = [nn.Parameter(theta.clone()) for _ in range(2)]
    optimizers = [make(p, decay) for p, decay in zip(pair, (shrink / lr, 0.0), strict=True)]
    moved = False
    for gradient in gradients:
        for p, optimizer in zip(pair, optimizers, strict=True):
            p.data.copy_(theta)
            p.grad = gradient.clone()
            take(optimizer)
        if all(torch.equal(p, theta) for p in pair):
            continue
        lost = pair[1] - pair[0]  # of the parameters before the step, or, by rules that decay behind it, after it
        if not any(torch.allclose(lost, shrink * of, rtol=1e-6, atol=1e-12) for of in (theta, pair[1])):
            return False
        moved = True
    return moved


def rounds_decay(make: Make, lr: float, decay: float, like: Float[Tensor, "*shape"]) -> bool:
    """Whether decoupled weight decay multiplies float32 by 1 − ηλ rounded to float32.

    So do PyTorch's optimisers on a CPU. This number is near 1, and its rounding off by up to 3·10⁻⁸/ηλ of the decay, in
    every entry and step alike: at ηλ = 10⁻⁵ by a part in 300. Found by a step without a gradient.
    """
    if like.dtype != torch.float32 or not decay:
        return False
    theta = torch.randn(16, 16, generator=torch.Generator().manual_seed(0)).to(like.device)
    p = nn.Parameter(theta.clone())
    p.grad = torch.zeros_like(p)
    make(p, decay).step()
    return torch.equal(p.detach(), theta * float(np.float32(1 - lr * decay)))
