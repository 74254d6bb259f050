"""Which charges a verification checks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from neuralmech.symmetry.group import Symmetries


class Choice(NamedTuple):
    """A site of a family, the numbers of its charges in the family, and of those drawn for the costly checks."""

    family: str
    site: str
    charges: np.ndarray
    sampled: np.ndarray


def choose(claims: Symmetries, sample: int, most: int | None, seed: int) -> list[Choice]:
    """Return every site, with `sample` of its charges drawn at random; of too many for `most`, one at so many sites."""
    random = np.random.default_rng(seed)
    out = []
    for name, family in claims.families.items():
        numbers: dict[str, list[int]] = {}
        for charge, site in enumerate(family.sites):
            numbers.setdefault(site, []).append(charge)
        for site, charges in numbers.items():
            sampled = np.sort(random.choice(charges, min(sample, len(charges)), replace=False))
            out.append(Choice(name, site, np.array(charges), sampled))
    if most is None or sum(c.sampled.size for c in out) <= most:
        return out
    kept = set(random.choice(len(out), min(most, len(out)), replace=False).tolist())
    return [c._replace(sampled=c.sampled[: 1 if i in kept else 0]) for i, c in enumerate(out)]
