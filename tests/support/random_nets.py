"""Random small nets: sequences, residual adds, concatenations, gates, norms and shared layers of supported ops."""

import torch
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from torch import nn

from nets import TINY

unhurried = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking takes minutes here
)

SIMPLE = st.sampled_from(["relu", "leaky", "tanh", "silu", "cube", "drop0", "abs", "half"])
NORMS = st.sampled_from(["batch", "layer", "rms", "batch_plain"])
WIDTHS = st.integers(3, 4)  # a norm over two elements is locally constant

leaf = st.one_of(
    st.tuples(st.just("linear"), WIDTHS, st.booleans()),
    st.tuples(SIMPLE),
    st.tuples(NORMS),
    st.tuples(st.just("twice")),  # one square layer, called two times
)
block = st.recursive(
    st.lists(leaf, min_size=1, max_size=3),
    lambda inner: st.lists(
        st.one_of(
            leaf,
            st.tuples(st.just("residual"), inner),
            st.tuples(st.just("concat"), inner, inner),
            st.tuples(st.just("gate"), inner, inner),
        ),
        min_size=1,
        max_size=4,
    ),
    max_leaves=7,
)


def kinds(steps):
    """Every operation in a program."""
    for step in steps:
        yield step[0]
        for inner in step[1:]:
            if isinstance(inner, list):
                yield from kinds(inner)


def has_known_gap(program):
    """Symmetries that discovery does not claim: x + BatchNorm(x) is ±x to a BatchNorm behind it."""
    found = list(kinds(program[1]))
    return "residual" in found and sum(kind in ("batch", "batch_plain") for kind in found) > 1


programs = st.tuples(WIDTHS, block)

FUNCTIONS = {
    "relu": torch.relu,
    "leaky": lambda x: nn.functional.leaky_relu(x, 0.3),
    "tanh": torch.tanh,
    "silu": nn.functional.silu,
    "cube": lambda x: x**3,
    "drop0": lambda x: nn.functional.dropout(x, 0.0),
    "abs": torch.abs,
    "half": lambda x: 0.5 * x,
}


class Block(nn.Module):
    def __init__(self, steps, width):
        super().__init__()
        self.steps, self.parts = steps, nn.ModuleList()
        for step in steps:
            part, width = build(step, width)
            self.parts.append(part)
        self.width = width

    def forward(self, x):
        for step, part in zip(self.steps, self.parts, strict=True):
            x = apply(step, part, x)
        return x


def build(step, width):
    kind = step[0]
    if kind == "linear":
        return nn.Linear(width, step[1], bias=step[2]), step[1]
    if kind == "twice":
        return nn.Linear(width, width), width
    if kind in ("batch", "batch_plain"):
        return nn.BatchNorm1d(width, eps=TINY, affine=kind == "batch"), width
    if kind == "layer":
        return nn.LayerNorm(width, eps=TINY), width
    if kind == "rms":
        return nn.RMSNorm(width, eps=TINY), width
    if kind in ("residual", "concat", "gate"):
        # Branches of a concatenation begin with a layer of their own: the same feature twice would have symmetries
        # between its two readers that are no symmetries of the architecture's parts.
        own = [("linear", 3, True)] if kind == "concat" else []
        inner = nn.ModuleList(Block([*own, *steps], width) for steps in step[1:])
        if kind == "concat":
            return inner, sum(b.width for b in inner)
        # bring the branches to one width, without a bias that would be a trap of its own
        target = width if kind == "residual" else inner[0].width
        fit = nn.ModuleList(nn.Linear(b.width, target) if b.width != target else nn.Identity() for b in inner)
        return nn.ModuleList([inner, fit]), target
    return nn.Identity(), width


def apply(step, part, x):
    kind = step[0]
    if kind in FUNCTIONS:
        return FUNCTIONS[kind](x)
    if kind == "twice":
        return part(torch.relu(part(x)))
    if kind == "concat":
        return torch.cat([b(x) for b in part], dim=-1)
    if kind == "residual":
        (inner,), (fit,) = part
        return x + fit(inner(x))
    if kind == "gate":
        inner, fit = part
        return fit[0](inner[0](x)) * fit[1](inner[1](x))
    return part(x)


def make(program):
    width, steps = program
    body = Block([("linear", width, True), *steps], 3)
    return nn.Sequential(body, nn.Linear(body.width, 3))
