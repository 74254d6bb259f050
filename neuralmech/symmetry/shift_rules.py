"""How displacements pass every operation; one that is not here lets none pass."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from neuralmech.symmetry import geometry
from neuralmech.symmetry.engine import Parameter
from neuralmech.symmetry.group import Axis
from neuralmech.symmetry.shift import CONSTANT, Key, Sector, Shift, ShiftAlgebra, Terms, rule
from neuralmech.symmetry.trace import place


def _fix(algebra: ShiftAlgebra, node: fx.Node, *values: Any) -> None:
    for value in values:
        algebra.forbid(value, f"{node.name} at {place(node)} is not blind to shifts")


def _expand(x: Shift, shape: torch.Size) -> Shift:
    return {key: sector.map(lambda t: t.expand(shape)) for key, sector in x.items()}


def _sum(x: Shift, y: Shift, node: fx.Node) -> Shift:
    total = dict(x)
    for key, sector in y.items():
        mine = total.get(key)
        if mine is None:
            total[key] = sector
        elif torch.equal(mine.amplitude, sector.amplitude):
            total[key] = Sector(mine.amplitude, mine.terms + sector.terms, mine.origins + sector.origins)
        else:  # the same input seen at other positions: an amplitude of its own
            total[(*key, node.name)] = sector
    return total


def _scaled(x: Shift, factor: float) -> Shift:
    share = Fraction(factor)
    return {k: Sector(s.amplitude, tuple((c * share, r) for c, r in s.terms), s.origins) for k, s in x.items()}


def _weighted(
    algebra: ShiftAlgebra,
    weight: Any,
    key: Key,
    amplitude: Tensor,
    shape: torch.Size,
    channel: int,
    axis: Axis = "rows",
) -> Shift:
    """Displacement of a linear map's output by its weight: unknowns along `channel`."""
    if not isinstance(weight, Parameter):
        algebra.forbid(weight, "a weight that is computed")
        return {}
    rows = torch.from_numpy(algebra.rows(weight, axis))
    out: Shift = {key: Sector(amplitude.expand(shape), ((Fraction(1), _along(rows, channel, shape)),))}
    if axis == "columns" and key[0] != "embedding":
        algebra.tokens_apart(weight)
    elif axis == "rows" and weight.name in algebra.uniform:  # tied to an embedding: all logits move alike
        tokens = torch.from_numpy(algebra.uniform[weight.name])
        out["tied", *key] = Sector(amplitude.expand(shape) + 1, (), (((Fraction(1), tokens),),))
    return out


def _along(values: Tensor, channel: int, shape: torch.Size) -> Tensor:
    """Broadcast a vector along one dimension of `shape`."""
    axis = [1] * len(shape)
    axis[channel] = shape[channel]
    return values.reshape(axis).expand(shape)


def _biased(algebra: ShiftAlgebra, bias: Any, shape: torch.Size, channel: int) -> Shift:
    return {k: s.map(lambda t: _along(t, channel, shape)) for k, s in algebra.shift(bias).items()}


def _through(algebra: ShiftAlgebra, node: fx.Node, x: Shift, channel: int) -> Shift:
    """Displacements that a linear map carries on: opaque, the same where all that it mixes is the same.

    Only those that are the same for the whole batch and at every position survive; it takes no more to find
    the biases that a BatchNorm behind a projection makes idle.
    """
    shape = node.meta["val"].shape
    out: Shift = {}
    for key, sector in x.items():
        flat = [t.movedim(channel, -1) for t in (sector.amplitude, *(r for _, r in sector.terms))]
        places = geometry.narrow(*flat)[0].shape[:-1].numel()
        if places == 1 and (key == CONSTANT or sector.origins):
            behind = (*sector.origins, sector.terms) if sector.terms else sector.origins
            classes = torch.arange(1, shape[channel] + 1)
            out["opaque", node.name, key] = Sector(_along(classes, channel, shape), (), behind)
        else:
            _fix(algebra, node, {key: sector})
    return out


@rule("linear")
def _linear(algebra: ShiftAlgebra, node: fx.Node, x: Any, weight: Any, bias: Any = None) -> Shift:
    shape = node.meta["val"].shape
    out = _sum(_through(algebra, node, algebra.shift(x), -1), _biased(algebra, bias, shape, -1), node)
    positions = torch.arange(shape[:-1].numel()).reshape(*shape[:-1], 1)
    return _sum(out, _weighted(algebra, weight, ("linear", _source(node)), positions, shape, -1), node)


@rule("addmm")
def _addmm(algebra: ShiftAlgebra, node: fx.Node, bias: Any, x: Any, weight: Any, **_: Any) -> Shift:
    shape = node.meta["val"].shape
    out = _sum(_through(algebra, node, algebra.shift(x), -1), _biased(algebra, bias, shape, -1), node)
    positions = torch.arange(shape[0])[:, None]
    source = node.all_input_nodes[1].name
    return _sum(out, _weighted(algebra, weight, ("linear", source), positions, shape, -1, "columns"), node)


@rule("matmul", "mm", "bmm")
def _matmul(algebra: ShiftAlgebra, node: fx.Node, x: Any, y: Any) -> Shift:
    _fix(algebra, node, algebra.shift(x))
    shape = node.meta["val"].shape
    if isinstance(y, Parameter) and len(y.shape) == 2:
        positions = torch.arange(shape[:-1].numel()).reshape(*shape[:-1], 1)
        return _weighted(algebra, y, ("linear", _source(node)), positions, shape, -1, "columns")
    return _keys(algebra, node, algebra.shift(y), shape)


def _keys(algebra: ShiftAlgebra, node: fx.Node, keys: Shift, shape: torch.Size) -> Shift:
    """q·kᵀ with every key displaced alike (a key bias): the same for all keys, which softmax ignores."""
    out: Shift = {}
    for key, sector in keys.items():
        values = [algebra.system.find(geometry.narrow(r)[0].numpy()) for _, r in sector.terms]
        if key == CONSTANT and len(shape) > 1 and all(v.shape[-1] == 1 for v in values):
            queries = torch.arange(1, shape[:-1].numel() + 1).reshape(*shape[:-1], 1)
            out["opaque", node.name, key] = Sector(queries.expand(shape), (), (sector.terms,))
        else:
            _fix(algebra, node, {key: sector})
    return out


@rule("scaled_dot_product_attention")
def _attention(algebra: ShiftAlgebra, node: fx.Node, q: Any, k: Any, v: Any, *_: Any, **__: Any) -> Shift:
    """Keys may move together; values that move together move the output, whose weights sum to one."""
    _fix(algebra, node, algebra.shift(q))
    keys = node.args[1].meta["val"].shape  # type: ignore[union-attr]
    algebra.ignore(algebra.shift(k), keys, (len(keys) - 2,), f"not the same for all keys at {place(node)}")
    _fix(algebra, node, algebra.shift(v))
    return {}


@rule("softmax", "_softmax", "log_softmax", "_log_softmax")
def _softmax(algebra: ShiftAlgebra, node: fx.Node, x: Any, dim: int, *_: Any, **__: Any) -> Shift:
    shape = node.args[0].meta["val"].shape  # type: ignore[union-attr]
    algebra.ignore(
        algebra.shift(x), shape, (dim % len(shape),), f"not the same for all of the softmax at {place(node)}"
    )
    return {}


@rule("index")
def _index(algebra: ShiftAlgebra, node: fx.Node, x: Any, indices: Any) -> Shift:
    """Entries picked by known integers (a table of relative positions) are displaced as they are in the table."""
    where = [None if n is None else algebra.concrete.get(n) for n in node.args[1]]  # type: ignore[union-attr]
    if any(w is None and n is not None for w, n in zip(where, node.args[1], strict=True)):  # type: ignore[arg-type]
        _fix(algebra, node, x)
        return {}
    return {k: s.map(lambda t: node.target(t, where)) for k, s in algebra.shift(x).items()}  # type: ignore[operator]


@rule("embedding")
def _embedding(
    algebra: ShiftAlgebra,
    node: fx.Node,
    weight: Any,
    indices: Any,
    padding: int = -1,
    by_frequency: bool = False,
    *_: Any,
) -> Shift:
    """A linear map of one-hot tokens: each token has one unknown per channel, and so have all of them together.

    A padding token has no gradient, so nothing is known of the sum over all tokens.
    """
    shape = node.meta["val"].shape
    positions = torch.arange(shape[:-1].numel()).reshape(*shape[:-1], 1)
    out = _weighted(algebra, weight, ("embedding", str(node.args[1])), positions, shape, -1, "columns")
    if isinstance(weight, Parameter):
        alike = algebra.tokens_alike(weight)
        if padding >= 0 or by_frequency:
            algebra.system.zero(alike, "the gradient leaves out a token or weighs them")
        rows = _along(torch.from_numpy(alike), -1, shape)
        out[CONSTANT] = Sector(torch.zeros((), dtype=torch.int64).expand(shape), ((Fraction(1), rows),))
    return out


@rule("conv1d", "conv2d", "conv3d")
def _conv(
    algebra: ShiftAlgebra, node: fx.Node, x: Any, weight: Any, bias: Any = None, *options: Any, **more: Any
) -> Shift:
    shape, kernel = node.meta["val"].shape, node.args[1].meta["val"].shape  # type: ignore[union-attr]
    width = kernel[2:]
    chosen = geometry.convolution_options(options, more)
    padding, groups = chosen.get("padding", 0), chosen.get("groups", 1)
    padded = padding == "same" if isinstance(padding, str) else any(geometry.spread(padding, len(width)))
    carried = algebra.shift(x)
    if padded:  # the border sees less of a displacement than the inside
        _fix(algebra, node, carried)
        carried = {}
    out = _sum(_through(algebra, node, carried, 1), _biased(algebra, bias, shape, 1), node)
    group = torch.arange(shape[1]).div(shape[1] // groups, rounding_mode="floor")
    places = torch.arange(shape[0] * shape[2:].numel()).reshape(shape[0], 1, *shape[2:])
    amplitude = places * groups + group.reshape(-1, *[1] * len(width))
    key = ("conv", _source(node), str(options), str(more), tuple(kernel[1:]))
    return _sum(out, _weighted(algebra, weight, key, amplitude, shape, 1), node)


def _source(node: fx.Node) -> str:
    """Name of the tensor that a linear map reads: parallel weights on one input share amplitudes."""
    return node.all_input_nodes[0].name


@rule(*geometry.MOVEMENT)
def _move(algebra: ShiftAlgebra, node: fx.Node, *args: Any, **kwargs: Any) -> Any:
    many = isinstance(args[0], (list, tuple))
    operands = [algebra.shift(a) for a in args[0]] if many else [algebra.shift(args[0])]
    shapes = [n.meta["val"].shape for n in (node.args[0] if many else [node.args[0]])]  # type: ignore[union-attr]
    parts: list[tuple[Key, Any, Terms, tuple[Terms, ...]]] = []
    for key in dict.fromkeys(k for shift in operands for k in shift):
        sectors = _aligned([shift.get(key) for shift in operands], shapes)

        def moved(tensors: list[Tensor]) -> Any:
            return geometry.move(node, (tensors if many else tensors[0], *args[1:]), kwargs)

        origins = next((shift[key].origins for shift in operands if key in shift), ())
        amplitude = moved([s.amplitude for s in sectors])
        terms = tuple(
            (sectors[0].terms[j][0], moved([s.terms[j][1] for s in sectors])) for j in range(len(sectors[0].terms))
        )
        parts.append((key, amplitude, terms, origins))
    val = node.meta["val"]
    if isinstance(val, (list, tuple)):
        return tuple(
            {key: Sector(a[i], tuple((c, r[i]) for c, r in terms), o) for key, a, terms, o in parts}
            for i in range(len(val))
        )
    return {key: Sector(amplitude, terms, origins) for key, amplitude, terms, origins in parts}


def _aligned(sectors: list[Sector | None], shapes: list[torch.Size]) -> list[Sector]:
    """Give operands of one movement the same terms: absent ones are displaced by nothing."""
    layout = [(i, j, c) for i, s in enumerate(sectors) if s for j, (c, _) in enumerate(s.terms)]
    out = []
    for i, (sector, shape) in enumerate(zip(sectors, shapes, strict=True)):
        nothing = torch.zeros((), dtype=torch.int64).expand(shape)
        terms = tuple((c, sector.terms[j][1] if sector and owner == i else nothing) for owner, j, c in layout)
        out.append(Sector(sector.amplitude if sector else nothing, terms))
    return out


@rule("add", "sub")
def _add(algebra: ShiftAlgebra, node: fx.Node, x: Any, y: Any, *, alpha: float = 1) -> Shift:
    sign = alpha if "add" in str(node.target) else -alpha
    shape = node.meta["val"].shape
    return _sum(_expand(algebra.shift(x), shape), _scaled(_expand(algebra.shift(y), shape), sign), node)


@rule("neg")
def _neg(algebra: ShiftAlgebra, node: fx.Node, x: Any) -> Shift:
    return _scaled(algebra.shift(x), -1)


@rule("mul", "div")
def _mul(algebra: ShiftAlgebra, node: fx.Node, x: Any, y: Any, **options: Any) -> Shift:
    factor = y if isinstance(y, (int, float)) else None
    if factor and not options:
        return _scaled(algebra.shift(x), factor if "mul" in str(node.target) else 1 / factor)
    if factor is None and algebra.shift(y) == {}:
        return _modulated(algebra.shift(x), node, 1)
    if algebra.shift(x) == {} and "mul" in str(node.target):
        return _modulated(algebra.shift(y), node, 0)
    _fix(algebra, node, x, y)
    return {}


def _modulated(x: Shift, node: fx.Node, operand: int) -> Shift:
    """Times numbers that are not displaced (a gate, the noise of stochastic depth): amplitudes of their own."""
    shape = node.meta["val"].shape
    other = node.args[operand].meta["val"].shape  # type: ignore[union-attr]
    cells = torch.arange(int(np.prod(other))).reshape(other).expand(shape)
    out: Shift = {}
    for key, sector in _expand(x, shape).items():
        pairs = torch.stack(
            torch.broadcast_tensors(*geometry.narrow(sector.amplitude), *geometry.narrow(cells)), dim=-1
        )
        fresh = _mixed(pairs) + 1
        moved = torch.where(geometry.narrow(sector.amplitude)[0] == 0, 0, fresh) if sector.origins else fresh
        out[(*key, node.name)] = Sector(moved.expand(shape), sector.terms, sector.origins)
    return out


@rule("mean", "sum")
def _mean(algebra: ShiftAlgebra, node: fx.Node, x: Any, dims: Any = None, keepdim: bool = False, **_: Any) -> Shift:
    shape = node.args[0].meta["val"].shape  # type: ignore[union-attr]
    every = range(len(shape)) if not dims else ([dims] if isinstance(dims, int) else dims)
    over = sorted({d % len(shape) for d in every})
    factor = 1 if "sum" not in str(node.target) else int(np.prod([shape[d] for d in over]))

    def windows(tensor: Tensor) -> Tensor:
        rest = [d for d in range(tensor.dim()) if d not in over]
        return tensor.permute(*rest, *over).flatten(len(rest)).reshape(*node.meta["val"].shape, -1)

    return _scaled(_pooled(algebra, node, algebra.shift(x), windows, average=True), factor)


@rule("avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool1d", "max_pool2d", "max_pool3d")
def _pool(algebra: ShiftAlgebra, node: fx.Node, x: Any, kernel: Any, stride: Any = None, *rest: Any, **_: Any) -> Shift:
    from_max = "max" in str(node.target)
    padding, dilation = rest[0] if rest else 0, rest[1] if from_max and len(rest) > 1 else 1

    def windows(tensor: Tensor) -> Tensor:
        return geometry.pool_windows(tensor, node.meta["val"].shape, kernel, stride, padding, dilation)

    if not from_max and len(rest) > 2 and rest[2] is False:  # count_include_pad: what sticks out does not count
        return _pooled(algebra, node, algebra.shift(x), windows, average=True, blind=True)
    if not from_max and len(rest) > 3 and rest[3] is not None:  # divisor_override: a sum, not a mean
        _fix(algebra, node, algebra.shift(x))
        return {}
    return _pooled(algebra, node, algebra.shift(x), windows, average=not from_max, blind=from_max)


@rule("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
def _adaptive_pool(algebra: ShiftAlgebra, node: fx.Node, x: Any, size: Any) -> Shift:
    def windows(tensor: Tensor) -> Tensor:
        return geometry.adaptive_windows(tensor, node.meta["val"].shape, len(size))

    return _pooled(algebra, node, algebra.shift(x), windows, average=True, blind=True)


@rule("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")
def _adaptive_max_pool(algebra: ShiftAlgebra, node: fx.Node, x: Any, size: Any) -> tuple:
    def windows(tensor: Tensor) -> Tensor:
        return geometry.adaptive_windows(tensor, node.meta["val"][0].shape, len(size))

    return _pooled(algebra, node, algebra.shift(x), windows, average=False, blind=True), {}


def _pooled(
    algebra: ShiftAlgebra, node: fx.Node, x: Shift, windows: Any, *, average: bool, blind: bool = False
) -> Shift:
    """Pass what is the same all over each window; an average also mixes amplitudes into new ones.

    `blind` pools do not see what sticks out of the input.
    """
    out: Shift = {}
    for key, sector in x.items():
        seen = sector.map(windows)
        outside = seen.amplitude == geometry.PADDING
        inside = seen.map(lambda t, outside=outside: _fill(t, outside)) if blind else seen
        whole = blind or not bool(outside.any())
        passes = all(algebra.same(rows, rows[..., :1].expand_as(rows)) for _, rows in inside.terms)
        if whole and passes and (average or key == CONSTANT):
            terms = tuple((c, rows[..., 0]) for c, rows in inside.terms)
            if key == CONSTANT:
                out[key] = Sector(inside.amplitude[..., 0], terms)
            else:
                out[(*key, node.name)] = Sector(_mixed(seen.amplitude) + 1, terms, sector.origins)
        else:
            _fix(algebra, node, {key: sector})
    return out


def _fill(windows: Tensor, outside: Tensor) -> Tensor:
    """Put each window's first inner element where it sticks out."""
    first = windows.gather(-1, (~outside).int().argmax(dim=-1, keepdim=True))
    return torch.where(outside, first, windows)


def _mixed(amplitude: Tensor) -> Tensor:
    """Return one new amplitude per distinct set of amplitudes under a window."""
    flat = amplitude.reshape(-1, amplitude.shape[-1]).numpy()
    _, inverse = np.unique(flat, axis=0, return_inverse=True)
    return torch.from_numpy(inverse.reshape(amplitude.shape[:-1]))


@rule(*geometry.NORMS)
def _norm(algebra: ShiftAlgebra, node: fx.Node, x: Any, *args: Any) -> Any:
    shape = node.args[0].meta["val"].shape  # type: ignore[union-attr]
    norm = geometry.NORMS[node.target.overloadpacket.__name__](shape, *args)  # type: ignore[union-attr]
    val = node.meta["val"]
    if norm is None:
        _fix(algebra, node, x, *args[:2])
        return tuple({} for _ in val) if isinstance(val, (tuple, list)) else {}
    if norm.centred:
        algebra.ignore(algebra.shift(x), norm.view, norm.dims, f"not constant over {node.name} at {place(node)}")
    else:
        _fix(algebra, node, algebra.shift(x))
    _fix(algebra, node, norm.weight)
    affine = norm.affine
    out = {k: s.map(lambda t: t.reshape(affine).expand(shape)) for k, s in algebra.shift(norm.bias).items()}
    return (out, *({} for _ in val[1:])) if isinstance(val, (tuple, list)) else out
