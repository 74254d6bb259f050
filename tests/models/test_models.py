import pytest
import torch

from conftest import config
from neuralmech.errors import UserError
from neuralmech.models import MODELS, build_model
from neuralmech.models.vision import ARCHITECTURES, VisionOptions
from neuralmech.symmetry.discover import find_symmetries


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("name", ["mlp", "convnet"])
def test_every_depth_width_and_activation_gives_logits(name, norm):
    for depth, activation in [(1, "relu"), (3, "tanh"), (2, "leaky_relu"), (4, "gelu"), (2, "linear")]:
        options = MODELS[name][0](depth=depth, width=3, activation=activation, norm=norm)
        options.check()
        assert build_model(options, (1, 8, 8), 5)(torch.randn(4, 1, 8, 8)).shape == (4, 5)


def test_a_convnet_needs_images():
    with pytest.raises(UserError, match=r"needs images .* use model=mlp"):
        build_model(config(model={"name": "convnet"}).model, (5,), 3)


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
