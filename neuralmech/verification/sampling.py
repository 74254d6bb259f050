"""Which charges a verification checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from neuralmech.symmetry.group import Symmetries


@dataclass(frozen=True)
class Sampling:
    """Which charges get the costly checks; the gradient's constraint is checked for all.

    Attributes
    ----------
    per_site
        Charges of each site, drawn at random.
    most
        Where those are more than this in all sites together, one charge at so many sites; None: no limit.
    seed
        Of the draws, and of what each check draws itself.
    """

    per_site: int = 4
    most: int | None = None
    seed: int = 0


USUAL = Sampling()


class Choice(NamedTuple):
    """A site of a family, the numbers of its charges in the family, and of those drawn for the costly checks."""

    family: str
    site: str
    charges: Int64[NDArray, " charges"]
    sampled: Int64[NDArray, " sampled"]


def choose(claims: Symmetries, sampling: Sampling) -> list[Choice]:
    """Return every site, with the charges that are drawn of it."""
    random, most = np.random.default_rng(sampling.seed), sampling.most
    out = []
    for name, family in claims.families.items():
        numbers: dict[str, list[int]] = {}
        for charge, site in enumerate(family.sites):
            numbers.setdefault(site, []).append(charge)
        for site, charges in numbers.items():
            sampled = np.sort(random.choice(charges, min(sampling.per_site, len(charges)), replace=False))
            out.append(Choice(name, site, np.array(charges), sampled))
    if most is None or sum(c.sampled.size for c in out) <= most:
        return out
    kept = set(random.choice(len(out), min(most, len(out)), replace=False).tolist())
    return [c._replace(sampled=c.sampled[: 1 if i in kept else 0]) for i, c in enumerate(out)]
