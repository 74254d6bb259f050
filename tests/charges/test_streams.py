"""Residual streams that are cut and put together again in every block, as with a class token."""

import torch
from torch import nn

from neuralmech.discovery.discover import find_symmetries
from neuralmech.discovery.system import System
from neuralmech.verification.verify import verify


class Stream(nn.Module):
    """Only the tokens behind the first get what each block adds."""

    def __init__(self, blocks, width=4):
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, 3, width))
        self.maps = nn.ModuleList(nn.Linear(width, width) for _ in range(2 * blocks))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(blocks + 1))
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        x = x + self.table
        for one, other, norm in zip(self.maps[::2], self.maps[1::2], self.norms, strict=False):
            y = norm(x)[:, 1:].tanh()
            x = torch.cat([x[:, :1], x[:, 1:] + one(y) + other(y)], dim=1)
        return self.head(self.norms[-1](x).tanh().mean(1))


def test_claims_hold():
    torch.manual_seed(0)
    checked = verify(Stream(2), torch.randn(8, 3, 4), torch.randint(3, (8,)))
    assert checked.passed
    assert len(checked.table)


def test_a_norm_asks_again_for_nothing_that_a_norm_before_it_asked_for(monkeypatch):
    made, add = [], System.add_rows
    monkeypatch.setattr(System, "add_rows", lambda self, ids, c: made.append(ids.size) or add(self, ids, c))

    def demanded(blocks):
        made.clear()
        find_symmetries(Stream(blocks), torch.randn(2, 3, 4))
        return sum(made)

    few, some, many = demanded(2), demanded(6), demanded(10)
    assert many - some <= some - few  # each block adds as much, not the more the more there are before it
