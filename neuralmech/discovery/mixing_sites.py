"""From mixable channels to the sites of the matrix-valued family ``linear``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from neuralmech.discovery.distinct import distinct_pairs
from neuralmech.discovery.mixing import MixingAlgebra
from neuralmech.symmetry.family import Axis, layer_names
from neuralmech.symmetry.matrix import Block, MatrixFamily, MatrixSite

Occurrence = tuple[bool, int, Axis, int, int, tuple[int, ...], int]  # columns last, parameter, axis, sign, …


def linear_family(algebra: MixingAlgebra, order: Sequence[str]) -> MatrixFamily:
    """Sites of two or more mixable channels that are both written and read.

    `order` is that of the model's parameters.
    """
    alike: dict[tuple, list[list[Occurrence]]] = defaultdict(list)
    for occurrences in _classes(algebra, order):
        # The index (last) is what may differ between channels that are alike.
        alike[tuple(o[:-1] for o in occurrences)].append(occurrences)
    found = []
    for signature, channels in alike.items():
        if len(channels) > 1 and len({o[3] for o in signature}) == 2:
            channels.sort(key=lambda occurrences: occurrences[0][-1])
            found.append((channels[0][0][:2], channels[0][0][-1], channels))
    found.sort(key=lambda entry: entry[:2])
    sites = [(_name(channels[0], order), _blocks(channels, order)) for _, _, channels in found]
    names = _numbered([name for name, _ in sites])
    return MatrixFamily.of(
        tuple(MatrixSite(name, len(blocks[0].index), blocks) for name, (_, blocks) in zip(names, sites, strict=True))
    )


def with_others(family: MatrixFamily, other: MatrixFamily) -> MatrixFamily:
    """Sites of a family, and those of another, found in another way, that do not mix the same channels.

    Where the side that grows has something in common, they are the same channels. The other side may have: a map of
    positions and channels together reads both.
    """
    taken, names = set().union(*map(_growing, family.matrices)), {site.name for site in family.matrices}
    more = [site for site in other.matrices if site.name not in names and taken.isdisjoint(_growing(site))]
    return MatrixFamily.of((*family.matrices, *more))


def _growing(site: MatrixSite) -> set[tuple[str, Axis, int]]:
    return {(b.parameter, b.axis, k) for b in site.blocks if b.sign > 0 for k in b.index.ravel().tolist()}


def _classes(algebra: MixingAlgebra, order: Sequence[str]) -> Iterable[list[Occurrence]]:
    """Channels that the network ties together: where each occurs, oriented so that the first one grows."""
    tokens = _tokens(algebra)
    classes: dict[int, list[Occurrence]] = defaultdict(list)
    position = {name: i for i, name in enumerate(order)}
    for name, axes in algebra.axes.items():
        for axis, ids, groups in axes:
            roots, mirrored = algebra.system.find(ids), algebra.system.find(ids ^ 1)
            alive = (roots != 0) & (mirrored != 0) & (roots != mirrored)
            per_group = len(ids) // groups
            for k in np.flatnonzero(alive).tolist():
                sign = 1 if roots[k] < mirrored[k] else -1
                seen = (k // per_group, *tokens.get(int(ids[k]), ()))
                occurrence = (axis == "columns", position[name], axis, sign, groups, seen, k)
                classes[int(min(roots[k], mirrored[k]))].append(occurrence)
    for occurrences in classes.values():
        occurrences.sort()
        flip = occurrences[0][3]
        yield [(*o[:3], o[3] * flip, *o[4:]) for o in occurrences]


def _tokens(algebra: MixingAlgebra) -> dict[int, tuple[int, ...]]:
    """Raw channel id → everything it met, sorted."""
    none = [np.zeros(0, dtype=np.int64)]
    channels = np.concatenate([*none, *(r.channels for r in algebra.readings)])
    channels, tokens = distinct_pairs(channels, np.concatenate([*none, *(r.tokens for r in algebra.readings)]))
    starts = np.flatnonzero(np.diff(channels, prepend=-1))
    ends, met = np.append(starts, tokens.size)[1:].tolist(), tokens.tolist()
    return {
        channel: tuple(met[start:end])
        for channel, start, end in zip(channels[starts].tolist(), starts.tolist(), ends, strict=True)
    }


def _blocks(channels: list[list[Occurrence]], order: Sequence[str]) -> tuple[Block, ...]:
    """Gather what stands at the same place in every channel's list, parameter by parameter."""
    places: dict[tuple[int, Axis, int, int], list[int]] = defaultdict(list)
    for at, (_, parameter, axis, sign, groups, _, _) in enumerate(channels[0]):
        places[parameter, axis, sign, groups].append(at)
    return tuple(
        Block(order[parameter], axis, np.array([[c[at][-1] for at in where] for c in channels]), sign, groups)
        for (parameter, axis, sign, groups), where in places.items()
    )


def _name(occurrences: list[Occurrence], order: Sequence[str]) -> str:
    grows = layer_names(order[o[1]] for o in occurrences if o[3] > 0)
    shrinks = layer_names(order[o[1]] for o in occurrences if o[3] < 0)
    return f"{grows} -> {shrinks}"


def _numbered(names: list[str]) -> list[str]:
    """Number the names that occur several times: the heads of an attention layer."""
    taken: dict[str, int] = defaultdict(int)
    out = []
    for name in names:
        out.append(f"{name} [{taken[name]}]" if names.count(name) > 1 else name)
        taken[name] += 1
    return out
