"""Discovery equals the numeric null space for every option of the built-in models, at tiny sizes."""

import pytest
import torch

from nets import TINY
from neuralmech.models import ConvNetOptions, MLPOptions, TransformerOptions, build_model
from neuralmech.models.parts import ACTIVATIONS
from oracle import check

CLASSES = 5


def tokens(generator):
    return torch.randint(CLASSES, (6, 4), generator=generator)


def build(options, shape, classes=CLASSES, **more):
    options.check()
    torch.manual_seed(0)
    model = build_model(options, shape, classes, **more)
    for module in model.modules():
        if hasattr(module, "eps"):
            module.eps = TINY
    return model


TRANSFORMERS = {
    "default": {},
    "rms": {"norm": "rms"},
    "rotary": {"positions": "rotary"},
    "rms_rotary": {"norm": "rms", "positions": "rotary"},
    "swiglu": {"norm": "rms", "activation": "swiglu", "positions": "rotary", "bias": False},
    "grouped_queries": {"kv_heads": 1},
    "grouped_queries_rotary": {"kv_heads": 1, "positions": "rotary", "bias": False},
    "tied": {"tie": True},
    "tied_rotary": {"tie": True, "positions": "rotary"},
    "relu": {"activation": "relu", "positions": "rotary"},
    "squared": {"activation": "squared", "norm": "rms", "positions": "rotary"},
    "no_bias": {"bias": False},
    "long_context": {"context": 6},
    "no_blocks": {"depth": 0},
    "two_blocks": {"depth": 2, "width": 2, "heads": 1, "hidden": 2, "norm": "rms", "positions": "rotary"},
}


PAIRS = ("rms_rotary", "grouped_queries_rotary", "tied_rotary", "squared")  # of what others have one by one


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in PAIRS else []) for n in TRANSFORMERS]
)
def test_transformers(name):
    tiny = TransformerOptions(**{"width": 4, "heads": 2, "hidden": 3, "depth": 1, **TRANSFORMERS[name]})
    check(build(tiny, (4,), tokens=True), tokens)


@pytest.mark.parametrize("norm", MLPOptions.norms)
def test_norms_of_mlps(norm):
    check(build(MLPOptions(width=6, depth=2, activation="leaky_relu", norm=norm), (3,)), (12, 3))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_of_mlps(activation):
    check(build(MLPOptions(width=4, depth=1, activation=activation), (3,)), (12, 3))


@pytest.mark.parametrize("norm", ConvNetOptions.norms)
def test_norms_of_convnets(norm):
    check(build(ConvNetOptions(width=4, depth=1, activation="leaky_relu", norm=norm), (1, 4, 4), 3), (6, 1, 4, 4))
