"""Causal self-attention with separate projections, so that charges are those of heads."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def rotate(x: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021, *RoFormer*): turn pair (x_i, x_{i+d/2}) at position t by t·10000^(−2i/d).

    Parameters
    ----------
    x
        Queries or keys (batch, heads, tokens, d), d even.

    Examples
    --------
    >>> q, k = (torch.ones(1, 1, 9, 4) @ torch.randn(4, 4, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    >>> scores = (rotate(q) @ rotate(k).mT)[0, 0]
    >>> torch.allclose(scores[1:, 1:], scores[:-1, :-1], atol=1e-5)  # they depend on the distance alone
    True
    """
    half = x.shape[-1] // 2
    rate = 10_000.0 ** -(torch.arange(half, dtype=torch.float64, device=x.device) / half)
    angle = torch.outer(torch.arange(x.shape[-2], dtype=torch.float64, device=x.device), rate).to(x)
    low, high = x[..., :half], x[..., half:]
    return torch.cat([low * angle.cos() - high * angle.sin(), high * angle.cos() + low * angle.sin()], dim=-1)


class Attention(nn.Module):
    """Causal self-attention; consecutive heads share keys and values where there are fewer of them."""

    def __init__(
        self, width: int, heads: int, kv_heads: int, *, bias: bool = True, rotary: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.rotary, self.dropout = heads, kv_heads, rotary, dropout
        shared = kv_heads * (width // heads)
        self.q = nn.Linear(width, width, bias=bias)
        self.k = nn.Linear(width, shared, bias=bias)
        self.v = nn.Linear(width, shared, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Mix each position with those before it: (batch, tokens, width) to the same."""
        q = self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (batch, heads, tokens, size)
        k = self.k(x).unflatten(-1, (self.kv_heads, -1)).transpose(1, 2)  # (batch, kv_heads, tokens, size)
        v = self.v(x).unflatten(-1, (self.kv_heads, -1)).transpose(1, 2)
        if self.rotary:
            q, k = rotate(q), rotate(k)
        mixed = F.scaled_dot_product_attention(
            q,
            k,
            v,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=True,
            enable_gqa=self.heads != self.kv_heads,
        )
        return self.out(mixed.transpose(1, 2).flatten(2))
