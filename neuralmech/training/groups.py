"""Which parameters have a learning rate and weight decay of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from neuralmech.config import GroupConfig
from neuralmech.errors import UserError

NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)


@dataclass(frozen=True)
class GroupFactors:
    """Factors of a group on the run's learning rate and weight decay."""

    lr: float = 1.0
    weight_decay: float = 1.0


@dataclass(frozen=True)
class Groups:
    """Groups of parameters; the first has what no other matches, and factors 1.

    Attributes
    ----------
    factors
        Of each group.
    of
        Parameter → number of its group.
    """

    factors: tuple[GroupFactors, ...]
    of: Mapping[str, int]

    def members(self, number: int) -> list[str]:
        """Parameters of a group."""
        return [name for name, group in self.of.items() if group == number]

    @property
    def ratios(self) -> dict[str, float] | None:
        """r: learning rate of each parameter relative to the run's; None where it is the run's of all."""
        found = {name: self.factors[group].lr for name, group in self.of.items()}
        return found if any(r != 1 for r in found.values()) else None

    @property
    def decays(self) -> dict[str, float] | None:
        """κ = rℓ: how fast each parameter decays relative to ηλ of the run; None where all do so."""
        found = {n: self.factors[g].lr * self.factors[g].weight_decay for n, g in self.of.items()}
        return found if any(k != 1 for k in found.values()) else None


def assign(model: nn.Module, wanted: Sequence[GroupConfig]) -> Groups:
    """Sort a model's trainable parameters into groups; each goes to the first that it matches.

    Raises
    ------
    UserError
        If a group matches no parameter, or none that an earlier group has not.
    """
    of_norms = {
        f"{module}.{name}" if module else name
        for module, m in model.named_modules()
        if isinstance(m, NORMS)
        for name, _ in m.named_parameters(recurse=False)
    }
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    kinds = {
        "bias": lambda name: name.rpartition(".")[2] == "bias",
        "norm": lambda name: name in of_norms,
        "matrix": lambda name: trained[name].ndim >= 2,
    }
    of: dict[str, int] = {}
    for number, group in enumerate(wanted, 1):
        matches = kinds.get(group.match, lambda name, pattern=group.match: fnmatchcase(name, pattern))
        found = [name for name in trained if matches(name)]
        mine = [name for name in found if name not in of]
        if not mine:
            why = "all that it matches is in earlier groups" if found else f"there are {_some(list(trained))}"
            raise UserError(f"optim.groups[{number - 1}].match={group.match} leaves no parameter to it; {why}")
        of |= dict.fromkeys(mine, number)
    factors = (GroupFactors(), *(GroupFactors(group.lr, group.weight_decay) for group in wanted))
    return Groups(factors, {name: of.get(name, 0) for name in trained})


def _some(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
