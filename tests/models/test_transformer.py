import pytest
import torch
from torch.nn import functional as F

from conftest import config
from neuralmech.errors import UserError
from neuralmech.models import TransformerOptions, build_model
from neuralmech.models.transformer import Attention

TINY = {"width": 8, "heads": 4, "hidden": 6}


def build(length=5, **options):
    torch.manual_seed(0)
    checked = TransformerOptions(**{**TINY, **options})
    checked.check()
    return build_model(checked, (length,), 7, tokens=True).double()


VARIANTS = [
    {},
    {"norm": "rms", "activation": "swiglu", "positions": "rotary", "kv_heads": 2, "bias": False},
    {"tie": True, "kv_heads": 1, "depth": 0, "activation": "relu"},
    {"context": 9, "dropout": 0.3},
]


@pytest.mark.parametrize("options", VARIANTS)
def test_logits_do_not_depend_on_later_tokens(options):
    model = build(**options).eval()
    tokens = torch.randint(7, (3, 5))
    logits = model(tokens)
    assert logits.shape == (3, 5, 7)
    for t in range(1, 5):
        later = tokens.clone()
        later[:, t:] = (later[:, t:] + 1) % 7
        torch.testing.assert_close(model(later)[:, :t], logits[:, :t])
        assert not torch.allclose(model(later)[:, t], logits[:, t])


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_attention_is_the_formula_head_by_head(kv_heads):
    torch.manual_seed(0)
    attention = Attention(8, 4, kv_heads).double()
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    q, k, v = attention.q(x), attention.k(x), attention.v(x)
    mixed = []
    for head in range(4):
        own, shared = slice(2 * head, 2 * head + 2), head * kv_heads // 4
        theirs = slice(2 * shared, 2 * shared + 2)
        scores = q[..., own] @ k[..., theirs].mT / 2**0.5
        scores = scores.masked_fill(torch.ones(5, 5, dtype=torch.bool).triu(1), -torch.inf)
        mixed.append(F.softmax(scores, dim=-1) @ v[..., theirs])
    torch.testing.assert_close(attention(x), attention.out(torch.cat(mixed, dim=-1)))


def test_options_choose_the_parameters():
    names = {name: p.shape for name, p in build(kv_heads=2, bias=False, activation="swiglu").named_parameters()}
    assert names["blocks.0.attention.k.weight"] == (4, 8)
    assert names["blocks.0.feed_forward.gate.weight"] == (6, 8)
    assert not any(name.endswith("bias") and "norm" not in name for name in names)
    assert "positions" not in dict(build(positions="rotary").named_parameters())
    tied = build(tie=True)
    assert tied.head.weight is tied.embedding.weight


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"heads": 3}, "model.heads=3 does not divide model.width=8"),
        ({"kv_heads": 3}, "model.kv_heads=3 does not divide model.heads=4"),
        ({"width": 4, "positions": "rotary"}, "needs heads of even size, not 1"),
        ({"context": 3}, "model.context=3 is shorter than the data's sequences; use 5 or more"),
        ({"dropout": 1.0}, r"model.dropout=1.0 must lie in \[0, 1\)"),
        ({"kv_heads": 0}, "model.kv_heads=0 is too small"),
        ({"activation": "swiglue"}, "did you mean swiglu"),
        ({"norm": "batch"}, "model.norm=batch is unknown; choose one of layer, rms"),
        ({"positions": "sine"}, "choose one of learned, rotary"),
    ],
)
def test_options_that_make_no_network_are_named(options, message):
    with pytest.raises(UserError, match=message):
        build(**options)


def test_data_and_model_must_fit():
    with pytest.raises(UserError, match=r"model=mlp needs real numbers, data has tokens; use model=transformer"):
        build_model(config().model, (5,), 7, tokens=True)
    with pytest.raises(UserError, match=r"model=transformer needs tokens, .*; use data=tokens"):
        build_model(TransformerOptions(), (5,), 7)
