"""Read a weight that a model cuts into rows as several weights, and write what is found of these as parts of the one.

Cross attention keeps the weights of queries, keys and values in one parameter and cuts it before its linear maps. Each
piece has rows and columns of its own then. What is claimed is told in rows of the whole, and in columns of groups of
rows.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from scipy import sparse
from torch import fx

from neuralmech.discovery.schema import arguments
from neuralmech.discovery.trace import Piece, Trace, operation, without_dead_code
from neuralmech.symmetry.family import Family, Term
from neuralmech.symmetry.matrix import Block

Range = tuple[int, int]


def cut_apart(traced: Trace) -> Trace:
    """Rewrite a trace's graph in place: a placeholder for each piece of a matrix that is read in pieces alone."""
    parameters, pieces = dict(traced.parameters), dict(traced.pieces)
    for node in [n for n in traced.graph.nodes if n.op == "placeholder" and n.name in traced.parameters]:
        name, shape = traced.parameters[node.name], node.meta["val"].shape
        cuts = list(_cuts(node)) if len(shape) == 2 else []
        ranges = sorted({where for _, where in cuts})
        ends = [0, *(end for _, end in ranges)]
        if len(ranges) < 2 or ends[-1] != shape[0] or ranges != [(a, b) for a, b in itertools.pairwise(ends) if a < b]:
            continue
        rows = math.gcd(*ends)
        for first, end in ranges:
            with traced.graph.inserting_after(node):
                piece = traced.graph.placeholder(f"{node.name}_{first}")
            val = node.meta["val"]
            piece.meta = {**node.meta, "val": torch.empty((end - first, shape[1]), dtype=val.dtype, device="meta")}
            parameters[piece.name] = label = f"{name}[{first}:{end}]"
            pieces[label] = Piece(name, first, end, shape[0] // rows)
            for cut in (cut for cut, where in cuts if where == (first, end)):
                cut.replace_all_uses_with(piece)
    without_dead_code(traced)

    def with_pieces(names: frozenset[str]) -> frozenset[str]:
        return names | {label for label, piece in pieces.items() if piece.of in names}

    marks = {"frozen": with_pieces(traced.frozen), "hooked": with_pieces(traced.hooked)}
    return replace(traced, parameters=parameters, pieces=pieces, **marks)


def _cuts(node: fx.Node) -> Iterator[tuple[fx.Node, Range]]:
    """What reads rows of a matrix, and which; a range that nothing fits if anything else reads it."""
    length = node.meta["val"].shape[0]
    for user in node.users:
        name = operation(user)
        given = arguments(user) if name in ("slice", "split", "split_with_sizes") else {}
        if given.get("dim") != 0 or given.get("step", 1) != 1:
            yield user, (-1, -1)
        elif name == "slice":
            yield user, slice(given["start"], given["end"]).indices(length)[:2]
        else:
            yield from _split(user)


def _split(node: fx.Node) -> Iterator[tuple[fx.Node, Range]]:
    lengths = [part.shape[0] for part in node.meta["val"]]
    ends = np.cumsum([0, *lengths]).tolist()
    for pick in node.users:
        yield pick, (ends[pick.args[1]], ends[pick.args[1] + 1])  # type: ignore[index,operator]


def joined(family: Family, pieces: Mapping[str, Piece], shapes: Mapping[str, Sequence[int]]) -> Family:
    """A family told of the parameters that the pieces are cut from, whose shapes are `shapes`, not of the pieces."""

    def merged(terms: Sequence[Term]) -> list[Term]:
        found: dict[tuple, Term] = {}
        for part in (part for term in terms for part in _terms(term, pieces, shapes)):
            key = (part.parameter, part.axis, part.width, part.groups, part.first.tobytes())
            before = found.get(key)
            both = part.coefficients if before is None else sparse.csr_array(before.coefficients + part.coefficients)
            found[key] = replace(part, coefficients=both)
        return list(found.values())

    return family.rewritten(merged, lambda block: _block(block, pieces, shapes))


def _terms(term: Term, pieces: Mapping[str, Piece], shapes: Mapping[str, Sequence[int]]) -> Iterator[Term]:
    piece = pieces.get(term.parameter)
    if piece is None:
        yield term
        return
    length, width = shapes[piece.of]
    if term.axis != "columns":
        each = 1 if term.axis == "rows" else width
        moved = _moved(term.coefficients, piece.first * each, length * each)
        yield replace(term, parameter=piece.of, coefficients=moved)
        return
    rows = length // piece.groups  # of a group
    for at, group in enumerate(range(piece.first // rows, piece.end // rows)):
        moved = _moved(term.coefficients, group * width, piece.groups * width)
        ahead = at * rows if term.width > 1 else 0  # each entry of a column has a charge
        each = rows if term.width > 1 else 1
        yield dataclasses.replace(
            term, parameter=piece.of, coefficients=moved, first=term.first + ahead, width=each, groups=piece.groups
        )


def _moved(matrix: sparse.csr_array, by: int, length: int) -> sparse.csr_array:
    """A matrix with its columns moved on by `by`, among `length` of them."""
    return sparse.csr_array((matrix.data, matrix.indices + by, matrix.indptr), shape=(matrix.shape[0], length))


def _block(block: Block, pieces: Mapping[str, Piece], shapes: Mapping[str, Sequence[int]]) -> Block:
    piece = pieces.get(block.parameter)
    if piece is None:
        return block
    length, width = shapes[piece.of]
    if block.axis != "columns":
        each = 1 if block.axis == "rows" else width
        return replace(block, parameter=piece.of, index=block.index + piece.first * each)
    rows = length // piece.groups
    index = [block.index + group * width for group in range(piece.first // rows, piece.end // rows)]
    return replace(block, parameter=piece.of, index=np.concatenate(index, axis=1), groups=piece.groups)
