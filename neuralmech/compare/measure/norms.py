"""Norms of each layer over a run: of its gradient, and of each step beside the layer itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64
from numpy.typing import NDArray

from neuralmech.laws.system import Array
from neuralmech.record import Record
from neuralmech.record.charges import Norms

PARTS = 100  # of a run: means over so few leave the noise of batches out
ROWS = 4096  # read at once, or one part


@dataclass(frozen=True)
class NormsCurve:
    """Norms of one run's layers, means over parts of its rows; what was not recorded is NaN.

    Attributes
    ----------
    step
        The middle of each part.
    layers
        Names, in the order of the network, first those with a weight matrix or filters, then those with gains and
        shifts only; a layer's norm is √Σ of the squared norms of its tensors.
    weighted
        How many have a weight matrix or filters.
    gradient
        |g| of each layer.
    relative
        |Δθ|/|θ| = η|u|/|θ| of each layer, how far a step goes beside what it moves.
    """

    step: Float64[Array, " points"]
    layers: tuple[str, ...]
    weighted: int
    gradient: Float64[Array, "points layers"]
    relative: Float64[Array, "points layers"]


def norms_curve(record: Record) -> NormsCurve | None:
    """Read the norms part by part; None where the record has none to draw."""
    norms = record.norms()
    if norms is None or not {"gradient", "update"} & set(norms.of):
        return None
    edges = np.unique(np.linspace(0, record.rows, min(PARTS, record.rows) + 1).astype(np.int64))
    layers, member = layers_of(list(norms.index["name"]))
    weighted = np.unique(member[norms.index["shape"].str.contains("x")])
    order = np.concatenate([weighted, np.setdiff1d(np.arange(len(layers)), weighted)])
    steps: list[float] = []
    found: list[tuple[Array, Array]] = []
    for here in _blocks(edges):
        rows, inner = slice(int(here[0]), int(here[-1])), here[1:-1] - here[0]
        read = [record.column("step", rows), *_of_rows(record, norms, rows, member)]
        for step, gradient, relative in zip(*(np.split(values, inner) for values in read), strict=True):
            steps.append(float(step.mean()))
            found.append((_mean(gradient), _mean(relative)))
    gradient, relative = (np.array(parts) for parts in zip(*found, strict=True))
    if not (np.isfinite(gradient).any() or np.isfinite(relative).any()):
        return None
    names = tuple(layers[i] for i in order)
    return NormsCurve(np.array(steps), names, len(weighted), gradient[:, order], relative[:, order])


def layers_of(names: list[str]) -> tuple[tuple[str, ...], Int64[NDArray, " tensors"]]:
    """The modules that tensors belong to, in their order, and of each tensor the place of its own.

    Examples
    --------
    >>> layers_of(["net.a.weight", "net.a.bias", "net.b.weight", "scale"])[0]
    ('net.a', 'net.b', 'scale')
    >>> layers_of(["net.a.weight", "net.b.weight"])[0]  # what all have in common says nothing
    ('a', 'b')
    >>> layers_of(["net.0.weight", "net.2.weight"])[0]  # nor does a number alone
    ('net.0', 'net.2')
    """
    owners = [name.rpartition(".")[0] or name for name in names]
    layers = list(dict.fromkeys(owners))
    member = np.array([layers.index(owner) for owner in owners], dtype=np.int64)
    while len(layers) > 1 and len({layer.partition(".")[0] for layer in layers}) == 1:
        rest = [layer.partition(".")[2] for layer in layers]
        if any(not name or name[0].isdigit() for name in rest):
            break
        layers = rest
    return tuple(layers), member


def _blocks(edges: Int64[NDArray, " edges"]) -> Iterator[Int64[NDArray, " some"]]:
    """Edges of as many parts as are read at once: memory does not grow with the record's length."""
    start = 0
    while start < len(edges) - 1:
        end = max(start + 1, int(np.searchsorted(edges, edges[start] + ROWS, side="right")) - 1)
        yield edges[start : end + 1]
        start = end


def _of_rows(record: Record, norms: Norms, rows: slice, member: Int64[NDArray, " tensors"]) -> tuple[Array, Array]:
    """The gradient's norm and the relative step of each layer at some rows."""
    shape = (rows.stop - rows.start, int(member.max()) + 1)
    gradient, relative = np.full(shape, np.nan), np.full(shape, np.nan)
    if "gradient" in norms.of:
        gradient = _of_layers(norms.gradient[rows], member)
    if {"update", "parameter"} <= set(norms.of):
        update = _of_layers(norms.update[rows], member) * np.abs(record.column("lr", rows))[:, None]
        size = _of_layers(norms.parameter[rows], member)
        np.divide(update, size, out=relative, where=size > 0)  # a layer that is zero moves by no share of itself
    return gradient, relative


def _of_layers(values: Array, member: Int64[NDArray, " tensors"]) -> Array:
    """Norms of layers out of those of their tensors: (rows, layers)."""
    out = np.zeros((len(values), int(member.max()) + 1))
    np.add.at(out.T, member, np.square(values).T)
    return np.sqrt(out)


def _mean(values: Array) -> Array:
    """Over rows, of what is finite."""
    finite = np.isfinite(values)
    total, number = np.where(finite, values, 0.0).sum(axis=0), finite.sum(axis=0)
    return np.divide(total, number, out=np.full(len(total), np.nan), where=number > 0)
