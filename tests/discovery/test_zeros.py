"""Zeros and assignments in place: zeros may scale as they like, and what is overwritten is not read."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.swin_transformer import SwinTransformer, SwinTransformerBlock, SwinTransformerBlockV2

from nets import TINY
from nets_more import Net
from oracle import check, check_sites


def padded_shortcut(self, x):
    """The parameter-free shortcut of the CIFAR ResNets: every other pixel, with zeros for the new channels."""
    x = torch.relu(self.stem(x))
    short = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1))
    return self.head(torch.relu(short + self.b(torch.relu(self.a(x)))).flatten(1))


def one_channel_padded(self, x):
    x = torch.relu(self.stem(x))
    return self.head((F.pad(x, (0, 0, 0, 0, 0, 3)) + torch.relu(self.b(x))).flatten(1))


def padded_tokens(self, x):
    x = F.pad(self.norm(x), (0, 0, 0, 2))
    return self.head(torch.relu(self.a(x)).mean(1))


def part_zeroed(self, x):
    bias = self.a.bias.clone()
    bias[1:3].zero_()
    return self.head(torch.relu(F.linear(x, self.a.weight, bias)))


def filled_part_by_part(self, x):
    h = x.new_zeros(len(x), 8)
    h[:, :4] = torch.relu(self.a(x))
    other = torch.relu(self.b(x))
    h[:, 4] = other[:, 0]
    h[:, 5:] = 2 * other[:, 1:]
    return self.head(h)


def zeroed_channel_in_a_sum(self, x):
    h = torch.relu(self.a(x))
    rest = h.clone()
    rest[:, 1].zero_()
    return self.head(rest + torch.relu(self.b(h)))


def bias_copied(self, x):
    bias = torch.ones(4, dtype=x.dtype)
    bias.copy_(self.b.bias)
    return self.head(torch.relu(F.linear(x, self.a.weight, bias)))


def images(g):
    return torch.randn(6, 1, 4, 4, generator=g, dtype=torch.float64)


def rows(g):
    return torch.randn(12, 3, generator=g, dtype=torch.float64)


def sequences(g):
    return torch.randn(6, 3, 4, generator=g, dtype=torch.float64)


def linears(forward, **more):
    return lambda: Net(forward, **{"a": nn.Linear(3, 4), "b": nn.Linear(3, 4), "head": nn.Linear(4, 3)} | more)


NETS = {
    "padded_shortcut": (
        lambda: Net(padded_shortcut, stem=nn.Conv2d(1, 2, 1), a=nn.Conv2d(2, 3, 2, stride=2), b=nn.Conv2d(3, 4, 1),
                    head=nn.Linear(16, 3)), images,
    ),
    "one_channel_padded": (
        lambda: Net(one_channel_padded, stem=nn.Conv2d(1, 1, 4), b=nn.Conv2d(1, 4, 1), head=nn.Linear(4, 3)), images,
    ),
    "padded_tokens": (
        lambda: Net(padded_tokens, norm=nn.LayerNorm(4, eps=TINY), a=nn.Linear(4, 4), head=nn.Linear(4, 3)), sequences,
    ),
    "part_zeroed": (linears(part_zeroed), rows),
    "filled_part_by_part": (linears(filled_part_by_part, head=nn.Linear(8, 3)), rows),
    "zeroed_channel_in_a_sum": (linears(zeroed_channel_in_a_sum, b=nn.Linear(4, 4)), rows),
    "bias_copied": (linears(bias_copied), rows),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_zeros_and_assignments_hide_no_symmetry(name):
    build, inputs = NETS[name]
    torch.manual_seed(0)
    check(build(), inputs)


@pytest.mark.parametrize("value", [1.0, 0.0])
def test_only_zeros_scale_freely(value):
    """Padded with ones, a channel of the sum does not scale."""
    torch.manual_seed(0)

    def forward(self, x):
        return self.head(F.pad(torch.relu(self.a(x)), (0, 1), value=value) + torch.relu(self.b(x)))

    diagonal, _ = check(linears(forward, a=nn.Linear(3, 3))(), rows)
    assert diagonal == (4 if value == 0 else 3)


@pytest.mark.parametrize("kind", [pytest.param(SwinTransformerBlock, marks=pytest.mark.slow), SwinTransformerBlockV2])
def test_windows_that_stick_out_and_cosine_attention_hide_no_symmetry(kind):
    """Windows of 3 over 4×4 patches; version 2 zeroes its key bias in place and normalises queries and keys."""
    torch.manual_seed(0)
    net = SwinTransformer(
        [2, 2], 4, [2], [2], [3, 3], mlp_ratio=0.5, num_classes=3, stochastic_depth_prob=0.0, block=kind
    )
    if kind is SwinTransformerBlockV2:
        for block in net.features[1]:
            block.attn.cpb_mlp = nn.Sequential(nn.Linear(2, 3), nn.ReLU(inplace=True), nn.Linear(3, 2, bias=False))
    for module in net.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = TINY
    *_, sites = check_sites(net, (4, 3, 8, 8))
    assert sites["rescale"]["features.1.0.attn.qkv -> features.1.0.attn.proj"] == 4
    if kind is SwinTransformerBlockV2:
        assert sites["scale"]["features.1.0.attn.qkv"] == 4  # queries and keys of two heads
        assert sites["translation"]["features.1.0.attn.qkv.bias"] == 4  # the key bias
