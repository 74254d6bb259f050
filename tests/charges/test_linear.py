"""The matrix-valued family against finite transformations, closed forms, and all quadratic charges there are."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from nets_experts import GROUPED
from neuralmech.discovery.discover import find_symmetries
from neuralmech.record import RecordWriter, open_record
from neuralmech.symmetry.matrix import MatrixFamily
from neuralmech.track import Tracker, Tracking
from neuralmech.training.flat import FlatParameters
from neuralmech.verification.verify import verify
from oracle import gradients, null_space, rank


class Attention(nn.Module):
    def __init__(self, width=8, heads=2, kv_heads=None, by_hand=False, bias=True, outside=4):
        super().__init__()
        self.heads, self.kv_heads, self.by_hand, self.width = heads, kv_heads or heads, by_hand, width
        inner = width // heads * self.kv_heads
        self.query = nn.Linear(outside, width, bias=bias)
        self.key = nn.Linear(outside, inner, bias=bias)
        self.value = nn.Linear(outside, inner, bias=bias)
        self.out = nn.Linear(width, outside, bias=bias)

    def split(self, x, heads):
        return x.view(*x.shape[:2], heads, self.width // self.heads).transpose(1, 2)

    def forward(self, x):
        q = self.rotate(self.split(self.query(x), self.heads))
        k = self.rotate(self.split(self.key(x), self.kv_heads))
        v = self.split(self.value(x), self.kv_heads)
        if self.by_hand:
            k, v = (self.repeat(t) for t in (k, v))
            mixed = ((q @ k.transpose(-1, -2)) * 0.7).softmax(-1) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, enable_gqa=self.heads != self.kv_heads)
        return (x + self.out(mixed.transpose(1, 2).reshape(*x.shape[:2], -1))).mean(dim=1)

    def rotate(self, x):
        return x

    def repeat(self, x):
        times = self.heads // self.kv_heads
        return x[:, :, None].expand(-1, -1, times, -1, -1).reshape(x.shape[0], self.heads, *x.shape[2:])


class Rotary(Attention):
    def rotate(self, x):
        half = x.shape[-1] // 2
        angle = torch.arange(x.shape[-2])[:, None] * (0.3 ** torch.arange(half).to(x))[None, :]
        angle = torch.cat([angle, angle], dim=-1)
        return x * angle.cos() + torch.cat([-x[..., half:], x[..., :half]], dim=-1) * angle.sin()


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.read, self.step, self.out = nn.Linear(2, 3), nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x):
        h = self.read(x)
        return self.out(self.step(self.step(h) + h))


class Bottleneck(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Linear(3, 2, bias=False), nn.Linear(2, 3)

    def forward(self, x):
        return x + self.up(self.down(x)) * 0.5


class Twins(nn.Module):
    """Two writers of one space, one with a factor; and one half of a wide layer added to the other."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Linear(2, 3), nn.Linear(2, 6), nn.Linear(3, 2)

    def forward(self, x):
        left, right = self.b(x).chunk(2, dim=-1)
        return self.out(self.a(x) - 2 * left + 3 * right)


class Tokens(nn.Module):
    """Bag of words: embedding, mean over tokens, linear read-out."""

    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(5, 3), nn.Linear(3, 2)

    def forward(self, x):
        return self.out(self.embed(x).mean(dim=1))


class Masked(nn.Module):
    """A per-sample factor keeps channels alike, a per-channel factor does not."""

    def __init__(self, per_channel):
        super().__init__()
        self.first, self.second = nn.Linear(2, 3), nn.Linear(3, 2)
        self.register_buffer("factor", torch.tensor([1.0, 2.0, 3.0]) if per_channel else torch.tensor([2.0]))

    def forward(self, x):
        return self.second(self.first(x) * self.factor * x[:, :1].exp())


class Rolled(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(2, 3), nn.Linear(3, 2)

    def forward(self, x):
        y = self.first(x)
        return self.second(y + y.roll(1, dims=-1))


class Partly(nn.Module):
    """The third channel is also read alone."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(2, 3), nn.Linear(3, 2)

    def forward(self, x):
        y = self.first(x)
        return self.second(y) + y[:, 2:].relu()


class Experts(nn.Module):
    """Each row through two maps of one of two experts and, in the middle, a layer of both; heads by `bmm` behind it."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Parameter(torch.randn(2, 3, 2)), nn.Parameter(torch.randn(2, 2, 3))
        self.one, self.two = nn.Parameter(torch.randn(2, 4, 2)), nn.Parameter(torch.randn(2, 3, 4))
        self.shared = nn.Linear(2, 2)

    def forward(self, x):
        first = (x[:, 0] <= 0).sum()
        ends = torch.stack([first, torch.full_like(first, len(x))])
        h = GROUPED(GROUPED(x[(x[:, 0] > 0).long().argsort()], self.up.mT, ends), self.down.mT, ends)
        y = self.shared(h).relu()
        return torch.bmm(torch.bmm(y.expand(2, *y.shape), self.one.mT), self.two.mT).sum(0)


class Left(nn.Module):
    """Two weights at the left of their inputs."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(4, 3))

    def forward(self, x):
        return (self.b @ (self.a @ x.T)).relu().T


class Cross(nn.Module):
    """Attention whose queries read another tensor than its keys and values."""

    def __init__(self):
        super().__init__()
        self.attention, self.out = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.attention(x[:, :2].square(), x, x, need_weights=False)[0].relu())


def deep(*widths, bias=True):
    return nn.Sequential(*(nn.Linear(a, b, bias=bias) for a, b in itertools.pairwise(widths)))


def convolutions():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Conv2d(4, 3, 2, padding=1), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 2)
    )


def grouped():
    return nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(16, 2))


def transposed():
    return nn.Sequential(nn.ConvTranspose2d(1, 3, 2), nn.Conv2d(3, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(18, 2))


TOKENS = (3, 5, 4)
NETS = {  # name: (model, shape of a batch, sizes of the sites)
    "deep": (lambda: deep(3, 4, 3, 2), (6, 3), [4, 3]),
    "no_bias": (lambda: deep(3, 4, 2, bias=False), (6, 3), [4]),
    "convolutions": (convolutions, (4, 1, 5, 5), [4, 3]),
    "grouped": (grouped, (4, 2, 4, 4), [2, 2, 2, 2]),
    "transposed": (transposed, (4, 1, 3, 3), [3]),
    "bottleneck": (Bottleneck, (6, 3), [2]),
    "recurrent": (Recurrent, (6, 2), [3]),
    "twins": (Twins, (6, 2), [3]),
    "attention": (Attention, TOKENS, [4, 4, 4, 4]),
    "attention_no_bias": (lambda: Attention(bias=False), TOKENS, [4, 4, 4, 4]),
    "attention_by_hand": (lambda: Attention(by_hand=True), TOKENS, [4, 4, 4, 4]),
    "weights_at_the_left": (Left, (6, 2), [3]),
    "cross_attention": (Cross, TOKENS, [2, 2, 2, 2]),
    "grouped_query": (lambda: Attention(heads=4, kv_heads=2), TOKENS, [2, 2, 2, 2]),
    "grouped_query_by_hand": (lambda: Attention(heads=4, kv_heads=2, by_hand=True), TOKENS, [2, 2, 2, 2]),
    "rotary": (Rotary, TOKENS, [4, 4]),  # values and outputs only
    "per_sample_factor": (lambda: Masked(False), (6, 2), [3]),
    "per_channel_factor": (lambda: Masked(True), (6, 2), []),
    "rolled": (Rolled, (6, 2), []),
    "experts": (Experts, (8, 2), [3, 3, 2, 4, 4]),
    "read_in_part": (Partly, (6, 2), [2]),
    "relu": (lambda: nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)), (6, 2), []),
    "dropout": (lambda: nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.5), nn.Linear(3, 2)), (6, 2), []),
    "norm": (lambda: nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3), nn.Linear(3, 2)), (6, 2), []),
}


def built(name):
    torch.manual_seed(0)
    build, shape, sizes = NETS[name]
    model = build().double().train()
    x = torch.randn(shape, dtype=torch.float64)
    return model, x, find_symmetries(model, x, loss="mse"), sizes


def matrices(found):
    return found.families["linear"].matrices if "linear" in found.families else ()


@pytest.mark.parametrize("name", NETS)
def test_any_invertible_matrix_leaves_the_output(name):
    """θ_write ↦ Aθ_write, θ_read ↦ A⁻ᵀθ_read for a random A, not only a symmetric one."""
    model, x, found, sizes = built(name)
    assert [m.size for m in matrices(found)] == sizes
    before = model(x)
    for site in matrices(found):
        mixing = torch.eye(site.size).double() + 0.4 * torch.randn(site.size, site.size).double()
        moved = {n: p.detach().clone() for n, p in model.named_parameters()}
        for block in site.blocks:
            at = torch.from_numpy(block.entries({name: p.shape for name, p in moved.items()}))
            flat = moved[block.parameter].view(-1)
            flat[at] = (mixing if block.sign > 0 else torch.linalg.inv(mixing).T) @ flat[at]
        after = functional_call(model, moved, (x,))
        assert (after - before).abs().max() < 1e-12 * before.abs().max()
        assert sum((moved[n] - p).abs().max() for n, p in model.named_parameters()) > 0.01


@pytest.mark.parametrize("name", ["deep", "attention", "grouped_query", "recurrent", "twins", "convolutions"])
def test_verify_checks_matrix_valued_claims(name):
    model, x, found, _ = built(name)
    y = torch.randn_like(model(x))
    result = verify(model, x, y, found, loss="mse")
    assert result.passed
    assert set(result.table["family"]) >= {"linear"}
    site = found.families["linear"].matrices[0]  # a claim that is false: one block's sign turned round
    blocks = (dataclasses.replace(site.blocks[0], sign=-site.blocks[0].sign), *site.blocks[1:])
    false = MatrixFamily.of([dataclasses.replace(site, blocks=blocks)])
    wrong = dataclasses.replace(found, families={"linear": false})
    assert not verify(model, x, y, wrong, loss="mse").passed


def test_closed_form_of_consecutive_layers_and_heads():
    model, _, found, _ = built("deep")
    first = found.families["linear"].matrices[0]
    theta = np.concatenate([p.detach().numpy().ravel() for p in model.parameters()])
    w1, b1, w2 = (model[0].weight, model[0].bias[:, None], model[1].weight)
    wanted = (w1 @ w1.T + b1 @ b1.T - w2.T @ w2).detach().numpy()
    for i in range(4):
        for j in range(4):
            assert theta @ (first.generator(i, j, found.shapes) @ theta) == pytest.approx(wanted[i, j], rel=1e-13)
    assert first.name == "0 -> 1"
    _, _, found, _ = built("attention")
    names = [m.name for m in found.families["linear"].matrices]
    assert names == ["query -> key [0]", "query -> key [1]", "value -> out [0]", "value -> out [1]"]


ALL_CHARGES = {
    "deep": (lambda: deep(2, 3, 1), (6, 2)),
    "deeper": (lambda: deep(2, 2, 2, 1), (6, 2)),
    "no_bias": (lambda: deep(2, 3, 2, bias=False), (6, 2)),
    "bottleneck": (Bottleneck, (6, 3)),
    "recurrent": (Recurrent, (6, 2)),
    "twins": (Twins, (8, 2)),
    "head": (lambda: Attention(width=2, heads=1, outside=2), (4, 3, 2)),
    "read_in_part": (Partly, (8, 2)),
    "per_channel_factor": (lambda: Masked(True), (6, 2)),
    "mixed": (lambda: nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)), (8, 2)),
}


@pytest.mark.parametrize("name", ALL_CHARGES)
def test_quadratic_charges_are_complete(name):
    """⟨g, Mθ⟩ = 0 for all θ and batches, M symmetric: its solutions are the charges found, and nothing more."""
    torch.manual_seed(0)
    build, shape = ALL_CHARGES[name]
    model = build().double().train()
    count = sum(p.numel() for p in model.parameters())
    i, j = np.triu_indices(count)
    batch = lambda g: torch.randn(shape, generator=g, dtype=torch.float64)  # noqa: E731
    theta, grad = gradients(model, batch, len(i) + 40, "mse")
    rows = (theta[:, i] * grad[:, j] + theta[:, j] * grad[:, i]) / np.where(i == j, 2, 1)
    found = find_symmetries(model, batch(torch.Generator()), loss="mse")
    dense = {name: g.toarray() for name, g in found.generators().items()}
    claims = [np.diag(row) for name in ("scale", "rescale") for row in dense.get(name, ())]
    moves = dense.get("translation", np.zeros((0, count)))  # with ⟨a, θ⟩ and ⟨b, θ⟩ their product is conserved too
    claims += [np.outer(a, b) + np.outer(b, a) for k, a in enumerate(moves) for b in moves[: k + 1]]
    for site in matrices(found):
        pairs = zip(*np.triu_indices(site.size), strict=True)
        claims += [site.generator(a, b, found.shapes).toarray() for a, b in pairs]
    flat = np.array([m[i, j] for m in claims])
    assert np.abs(rows @ flat.T).max() < 1e-9 * np.abs(rows).max()
    assert rank(flat) == len(null_space(rows))


@pytest.mark.parametrize("full", [16, 2])
@pytest.mark.parametrize("name", ["deep", "convolutions", "attention", "grouped_query", "twins"])
def test_recorded_matrices_are_the_definitions(name, full, tmp_path):
    model, x, found, sizes = built(name)
    flat = FlatParameters(model)
    tracker = Tracker(found, flat.layout, flat.theta, Tracking(families=["linear"], block=1, full=full))
    optimizer = torch.optim.SGD([flat.theta], lr=0.05, momentum=0.5)
    flat.grad.zero_()
    loss = F.mse_loss(model(x), torch.ones_like(model(x)))
    loss.backward()
    vector = lambda ts: np.concatenate([t.detach().numpy().ravel() for t in ts])  # noqa: E731
    theta, gradient = vector(model.parameters()), vector(p.grad for p in model.parameters())
    tracker.before(flat.theta)
    optimizer.step()
    update = (theta - vector(model.parameters())) / 0.05
    row = {"step": 0, "time": 0.0, "lr": 0.05, "momentum": 0.5, "dampening": 0.0, "weight_decay": 0.0}
    row |= {"nesterov": False, "decoupled": False, "batch_size": 6}
    tracker.after(tracker.step(flat.theta, flat.grad, 20.0), loss, row)
    with RecordWriter(tmp_path, {}, tracker.layouts(), 1) as record:
        tracker.write(record)
    with open_record(tmp_path) as record:
        charges = record.charges("linear")
        index = charges.index
        assert len(index) == sum(n * (n + 1) // 2 if n <= full else n for n in sizes)
        sites = {m.name: m for m in matrices(found)}
        for k, (site, i, j) in enumerate(index.itertuples(index=False)):
            m = sites[site].generator(i, j, found.shapes)
            truth = [theta @ (m @ theta), update @ (m @ update), gradient @ (m @ gradient), theta @ (m @ gradient)]
            got = [getattr(charges, s)[0, k] for s in ("value", "drive_update", "drive_gradient", "residual")]
            np.testing.assert_allclose(got, truth, rtol=1e-11, atol=1e-13)
        for k, site in enumerate(charges.norm_sites):
            m, shapes = sites[site], found.shapes
            q = [[theta @ (m.generator(i, j, shapes) @ theta) for j in range(m.size)] for i in range(m.size)]
            assert charges.frobenius[0, k] == pytest.approx(np.linalg.norm(q), rel=1e-12)
