import pytest
import torch

from conftest import config
from neuralmech.discovery.discover import find_symmetries
from neuralmech.errors import UserError
from neuralmech.models import MODELS, ConvNetOptions, build_model
from neuralmech.models.options import ARCHITECTURES, VisionOptions
from neuralmech.models.parts import ACTIVATIONS


@pytest.mark.parametrize(
    ("name", "norm"), [(name, norm) for name in ("mlp", "convnet") for norm in MODELS[name][0].norms]
)
def test_every_depth_width_and_activation_gives_logits(name, norm):
    for i, activation in enumerate(ACTIVATIONS):
        options = MODELS[name][0](depth=1 + i % 3, width=4, activation=activation, norm=norm)
        options.check()
        assert build_model(options, (1, 8, 8), 5)(torch.randn(4, 1, 8, 8)).shape == (4, 5)


def test_a_convnet_needs_images():
    with pytest.raises(UserError, match=r"needs images .* use model=mlp"):
        build_model(config(model={"name": "convnet"}).model, (5,), 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "mlp", "norm": "instance"}, "model.norm=instance is unknown; choose one of none, batch, layer"),
        ({"name": "mlp", "norm": "group", "width": 5}, "model.groups=2 does not divide model.width=5"),
        ({"name": "mlp", "norm": "group", "groups": 0}, "model.groups=0 is too small"),
        ({"name": "convnet", "depth": 0}, "model.depth=0 is too small; give 1 or more"),
        ({"name": "convnet", "width": 0}, "model.width=0 is too small"),
        ({"name": "convnet", "activation": "sqared"}, "did you mean squared"),
    ],
)
def test_options_that_make_no_network_are_named(options, message):
    with pytest.raises(UserError, match=message):
        config(model=options)


def test_instance_norm_needs_more_than_a_pixel():
    options = ConvNetOptions(depth=4, norm="instance")
    with pytest.raises(UserError, match=r"one pixel left to normalise at convolution 4; use model.depth=3"):
        build_model(options, (1, 8, 8), 5)


def test_torchvision_models_have_their_charges():
    """Counts for the shapes, by hand: vgg11 has 2·64+… channels between layers, and 4,096 + 1 columns at the end."""
    model = build_model(VisionOptions(arch="vgg11"), (3, 32, 32), 10)
    sites = find_symmetries(model, torch.randn(2, 3, 32, 32)).sites
    assert sum(sites["rescale"].values()) == 64 + 128 + 2 * 256 + 4 * 512 + 2 * 4096
    assert sum(sites["translation"].values()) == 4096 + 1
    with pytest.raises(UserError, match="needs images of 3×32×32"):
        build_model(VisionOptions(), (1, 8, 8), 10)
    with pytest.raises(UserError, match="did you mean resnet18"):
        VisionOptions(arch="resnet_18").check()
    assert {"vgg19_bn", "resnet50", "vit_b_16"} <= set(ARCHITECTURES)


def test_a_compact_head_is_that_of_neural_mechanics():
    """The column sums, 1,024 and one for the bias, and a rescale charge per neuron of either hidden layer."""
    model = build_model(VisionOptions(arch="vgg11", head="compact"), (3, 64, 64), 200)
    assert [tuple(layer.weight.shape) for layer in model.classifier[::2]] == [(1024, 2048), (1024, 1024), (200, 1024)]
    sites = find_symmetries(model, torch.randn(2, 3, 64, 64)).sites
    assert sum(sites["translation"].values()) == 1024 + 1
    assert sum(sites["rescale"].values()) == 64 + 128 + 2 * 256 + 4 * 512 + 2 * 1024
    wide = build_model(VisionOptions(arch="vgg11", head="compact"), (3, 32, 96), 7)
    assert wide(torch.randn(2, 3, 32, 96)).shape == (2, 7)
    with pytest.raises(UserError, match=r"model.head=compact is for VGGs; with model.arch=resnet18 leave it"):
        VisionOptions(head="compact").check()


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_a_resnet_without_normalisation_keeps_the_size_of_what_passes(arch):
    """At the start its blocks add nothing, and each block's first gradient is that of a map which begins at zero."""
    x = torch.randn(4, 3, 32, 32)
    model = build_model(VisionOptions(arch=arch, norm="none"), (3, 32, 32), 10)
    sizes = []
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        stage.register_forward_hook(lambda _m, args, out: sizes.append(float((out.std() / args[0].std()).detach())))
    model(x).square().sum().backward()
    assert all(0.2 < size < 5 for size in sizes), sizes
    last = "conv2.weight" if arch == "resnet18" else "conv3.weight"
    lasts = [p for name, p in model.named_parameters() if name.endswith(last)]
    assert all(not p.any() and p.grad is not None and p.grad.any() for p in lasts)


@pytest.mark.parametrize(
    "arch", ["resnet18", *(pytest.param(a, marks=pytest.mark.slow) for a in ("vgg11_bn", "vit_b_16"))]
)
def test_symmetries_need_no_numbers(arch):
    from neuralmech.config import resolve
    from neuralmech.training.setup import prepare, summary

    data = {"name": "synthetic", "shape": [3, 32, 32], "size": 8, "batch_size": 2}
    config = resolve({"model": {"name": "torchvision", "arch": arch}, "data": data, "device": "cpu"})
    bare, full = prepare(config, bare=True), prepare(config)
    assert all(p.is_meta for p in bare.model.parameters())
    assert summary(bare) == summary(full)
