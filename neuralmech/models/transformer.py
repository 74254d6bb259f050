"""A decoder-only language model, whose attention has separate projections, so that charges are those of heads."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from neuralmech.errors import UserError
from neuralmech.models.options import TransformerOptions
from neuralmech.models.parts import ACTIVATIONS, layer_norm


def rotate(x: Float[Tensor, "batch heads tokens size"]) -> Float[Tensor, "batch heads tokens size"]:
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

    def forward(self, x: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
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


class FeedForward(nn.Module):
    """down(act(up x)), or down(silu(gate x) ⊙ up x) for ``swiglu`` (Shazeer 2020)."""

    def __init__(self, options: TransformerOptions) -> None:
        super().__init__()
        width, hidden = options.width, options.hidden or 4 * options.width
        self.up = nn.Linear(width, hidden, bias=options.bias)
        gated = options.activation == "swiglu"
        self.gate = nn.Linear(width, hidden, bias=options.bias) if gated else None
        self.activation = nn.SiLU() if gated else ACTIVATIONS[options.activation]()
        self.down = nn.Linear(hidden, width, bias=options.bias)

    def forward(self, x: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        """Transform each position by itself: (batch, tokens, width) to the same."""
        up = self.up(x)
        return self.down(self.activation(up) if self.gate is None else self.activation(self.gate(x)) * up)


class DecoderBlock(nn.Module):
    """Pre-norm: x + attention(norm x), then x + feed-forward(norm x)."""

    def __init__(self, options: TransformerOptions) -> None:
        super().__init__()
        self.norm1 = layer_norm(options.norm, options.width)
        self.attention = Attention(
            options.width,
            options.heads,
            options.kv_heads or options.heads,
            bias=options.bias,
            rotary=options.positions == "rotary",
            dropout=options.dropout,
        )
        self.norm2 = layer_norm(options.norm, options.width)
        self.feed_forward = FeedForward(options)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, x: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        """Write to the residual stream twice."""
        x = x + self.dropout(self.attention(self.norm1(x)))
        return x + self.dropout(self.feed_forward(self.norm2(x)))


class Transformer(nn.Module):
    """Embedding, positions, `depth` blocks, final norm, `head`."""

    def __init__(self, options: TransformerOptions, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        (tokens,) = shape
        context = options.context or tokens
        if tokens > context:
            raise UserError(f"model.context={context} is shorter than the data's sequences; use {tokens} or more")
        self.embedding = nn.Embedding(classes, options.width)
        learned = options.positions == "learned"
        self.positions = nn.Parameter(torch.randn(context, options.width)) if learned else None
        self.dropout = nn.Dropout(options.dropout)
        self.blocks = nn.Sequential(*(DecoderBlock(options) for _ in range(options.depth)))
        self.norm = layer_norm(options.norm, options.width)
        self.head = nn.Linear(options.width, classes, bias=options.bias)
        if options.tie:
            nn.init.normal_(self.embedding.weight, std=options.width**-0.5)  # logits of order one
            self.head.weight = self.embedding.weight

    def forward(self, tokens: Int64[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens classes"]:
        """Logits (batch, tokens, classes) of the token after each position of (batch, tokens)."""
        x = self.embedding(tokens)
        if self.positions is not None:
            x = x + self.positions[: tokens.shape[1]]
        return self.head(self.norm(self.blocks(self.dropout(x))))
