"""Crops and flips of a whole batch, against torchvision's of one image."""

from functools import partial

import pytest
import torch
from torchvision.transforms import functional as transform

from neuralmech.data.batches import Augment, crop_and_flip
from neuralmech.data.draws import CPU, Order
from neuralmech.data.options import AugmentOptions
from neuralmech.errors import UserError

SHAPE = (3, 8, 6)
draw = partial(torch.randint, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64])
def test_each_image_as_torchvision_does_it(dtype):
    x = draw(1, 256, (40, *SHAPE)).to(dtype)
    down, right, flip = draw(7, (40,)), draw(7, (40,)), draw(2, (40,)).bool()
    for image, out, i, j, f in zip(x, crop_and_flip(x, down, right, flip, 3), down, right, flip, strict=True):
        wanted = transform.crop(transform.pad(image, [3]), int(i), int(j), *SHAPE[1:])
        assert torch.equal(out, transform.hflip(wanted) if f else wanted)


def augment(seed=0, **options):
    return Augment(AugmentOptions(**options), Order(48, 16, seed), 16, seed, SHAPE, CPU)


def test_offsets_and_flips_are_uniform_and_differ_between_epochs_and_samples():
    marked = torch.zeros(16, 1, 8, 6)
    marked[:, :, 4, 2] = 1
    found = [augment(crop=1, flip=True)(marked, step) for step in range(300)]
    places = torch.stack([f.flatten(1).argmax(dim=1) for f in found])
    counts = places.flatten().bincount(minlength=48).reshape(8, 6)[3:6]
    assert int(counts.sum()) == 300 * 16
    columns = counts.sum(dim=0).double() / (300 * 16)
    # a column 2 + (−1, 0, 1), or 5 minus that: six places, of which 2 and 3 get both
    expected = torch.tensor([0, 1, 2, 2, 1, 0]) / 6
    assert torch.allclose(columns, expected.double(), atol=0.03)  # 4 standard deviations of 4,800 draws
    assert torch.allclose(counts.sum(dim=1) / (300 * 16), torch.tensor(1 / 3), atol=0.03)
    assert not torch.equal(places[0], places[3])  # same position in two epochs


def test_it_depends_on_seed_and_step_alone():
    x = draw(256, (16, *SHAPE))
    first = augment(crop=2, flip=True)
    later = [first(x, step) for step in (7, 0, 4, 7)]
    assert torch.equal(later[0], later[3])
    assert torch.equal(later[2], augment(crop=2, flip=True)(x, 4))
    assert not torch.equal(later[2], augment(seed=1, crop=2, flip=True)(x, 4))


def test_crops_alone_do_not_flip():
    x = draw(256, (16, *SHAPE))
    assert torch.equal(augment(crop=0, flip=False)(x, 5), x)


@pytest.mark.parametrize(
    ("shape", "message"), [((5,), "data.augment is for images"), ((1, 4, 9), "data.augment.crop=4 is as large as")]
)
def test_what_cannot_be_augmented(shape, message):
    with pytest.raises(UserError, match=message):
        Augment(AugmentOptions(crop=4), Order(48, 16, 0), 16, 0, shape, CPU)
