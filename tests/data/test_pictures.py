"""Images in folders, in the formats that cameras and programs write."""

import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from neuralmech.data import ImageFolderOptions, load_data, settle
from neuralmech.data.dataset import Place, measure
from neuralmech.data.parts import Items
from neuralmech.data.pictures import to_bytes
from neuralmech.errors import UserError

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}


def noise(seed, height=8, width=8):
    return np.random.default_rng(seed).integers(256, size=(height, width, 3), dtype=np.uint8)


def write(folder, parts=("",), classes=("cat", "ant"), each=5, size=8, suffix="png"):
    """A folder for each class, in which the files' numbers have as many digits as they need."""
    for number, part in enumerate(parts):
        for label, name in enumerate(classes):
            place = folder / part / name
            place.mkdir(parents=True)
            for i in range(each):
                Image.fromarray(noise(100 * number + 10 * label + i, size, size)).save(place / f"{i + 7}.{suffix}")
    return folder


def options(folder, **more):
    chosen = ImageFolderOptions(path=str(folder), batch_size=2, **more)
    chosen.check()
    return chosen


def everything(part):
    return part[np.arange(len(part))]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_parts_are_those_of_torchvision(tmp_path, suffix):
    write(tmp_path, ("train", "val"), suffix=suffix)
    data = load_data(options(tmp_path, size=8))
    assert (data.shape, data.classes, data.has_tokens) == ((3, 8, 8), 2, False)
    for part, name in ((data.train, "train"), (data.test, "val")):
        there = ImageFolder(str(tmp_path / name))
        assert there.classes == ["ant", "cat"]
        x, y = everything(part)
        wanted = [np.asarray(image).transpose(2, 0, 1) for image, _ in there]
        assert np.array_equal(x.numpy(), np.stack(wanted))
        assert y.tolist() == there.targets
    assert data.pixels == measure(everything(data.train)[0])


def test_a_share_is_held_out_in_one_order_everywhere(tmp_path):
    """Each image is in one part, whatever order the file system has them in; what is no image counts for none."""
    for folder, classes in (("a", ("cat", "ant")), ("b", ("ant", "cat"))):
        write(tmp_path / folder)
        for name in classes:
            (tmp_path / folder / name / "notes.txt").write_text("none")
            (tmp_path / folder / name / ".hidden.png").write_text("none")
        (tmp_path / folder / ".cache").mkdir()
    loaded = [load_data(options(tmp_path / name, size=8)) for name in "ab"]
    assert (len(loaded[0].train), len(loaded[0].test)) == (8, 2)
    for first, second in zip(*([d.train, d.test] for d in loaded), strict=True):
        assert all(torch.equal(x, y) for x, y in zip(everything(first), everything(second), strict=True))
    found = {x.numpy().tobytes() for part in (loaded[0].train, loaded[0].test) for x in everything(part)[0]}
    wanted = {noise(10 * label + i).transpose(2, 0, 1).tobytes() for label in (0, 1) for i in range(5)}
    assert found == wanted


def test_folders_in_those_of_classes_are_looked_through(tmp_path):
    write(tmp_path, classes=("n1/images", "n2/images"))
    data = load_data(options(tmp_path, size=8))
    assert (len(data.train) + len(data.test), data.classes) == (10, 2)


def test_the_middle_of_any_shape_is_kept():
    """Of three vertical stripes the middle one is left, whichever way the image lies; nothing is squeezed."""
    stripes = np.zeros((20, 60, 3), dtype=np.uint8)
    for k, colour in enumerate(COLOURS.values()):
        stripes[:, 20 * k : 20 * (k + 1)] = colour
    green = torch.tensor([0, 255, 0], dtype=torch.uint8)[:, None, None]
    for array in (stripes, stripes.transpose(1, 0, 2)):
        for size in (20, 10, 40):
            x = to_bytes(Image.fromarray(np.ascontiguousarray(array)), size)
            assert x.shape == (3, size, size)
            inside = x[:, 4:-4, 4:-4]
            assert torch.equal(inside, green.expand_as(inside))
    assert to_bytes(Image.fromarray(stripes)).shape == (3, 20, 60)


def test_every_kind_of_image_becomes_bytes_of_three_colours():
    grey = noise(0)[:, :, 0]
    rgb = np.repeat(grey[None], 3, axis=0)
    assert np.array_equal(to_bytes(Image.fromarray(grey)).numpy(), rgb)
    assert np.array_equal(to_bytes(Image.fromarray(grey.astype(np.uint16) * 256 + 99)).numpy(), rgb)
    assert np.array_equal(to_bytes(Image.fromarray(grey > 99)).numpy(), 255 * (rgb > 99))
    colour, alpha = noise(1), np.where(grey > 99, 255, 0).astype(np.uint8)
    shown = to_bytes(Image.fromarray(np.dstack([colour, alpha]))).numpy()
    assert np.array_equal(shown, (colour * (alpha > 0)[:, :, None]).transpose(2, 0, 1))
    palette = Image.fromarray(colour).quantize(4)
    assert np.array_equal(to_bytes(palette).numpy(), np.asarray(palette.convert("RGB")).transpose(2, 0, 1))


def test_a_photograph_is_upright(tmp_path):
    image, turned = Image.fromarray(noise(0, 8, 12)), Image.Exif()
    turned[0x0112] = 6  # its camera was held on its side
    image.save(tmp_path / "turned.png", exif=turned)
    with Image.open(tmp_path / "turned.png") as read:
        assert np.array_equal(to_bytes(read).numpy(), np.rot90(noise(0, 8, 12), -1).transpose(2, 0, 1))


@pytest.mark.parametrize(("residency", "streamed"), [("device", False), ("loader", True)])
def test_batches_are_the_same_wherever_images_are(tmp_path, residency, streamed):
    chosen = options(write(tmp_path), size=6, residency=residency, workers=0)
    data = load_data(chosen)
    settled = settle(data, chosen, torch.device("cpu"), torch.float32)
    assert settled.place == Place(torch.device("cpu"), torch.float32, streamed, 0)
    assert isinstance(settled.train, Items) == streamed
    x, y = (torch.cat(parts) for parts in zip(*settled.held_out(4), strict=True))
    stored, labels = everything(data.test)
    assert torch.equal(x, settled.inputs(stored))
    assert torch.equal(y, labels)


def test_an_image_that_cannot_be_read_is_named(tmp_path):
    write(tmp_path, ("train", "val"))
    path = tmp_path / "train/cat/9.png"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=rf"{path} cannot be read as an image \(.*\); mend it or remove it$"):
        load_data(options(tmp_path))
    path.write_bytes(b"no image")
    with pytest.raises(UserError, match=rf"{path} cannot be read as an image \(cannot identify image file\)"):
        load_data(options(tmp_path))


def test_an_image_that_would_fill_the_memory_is_named(tmp_path):
    """A header alone, of 50,000 × 50,000 pixels."""
    write(tmp_path)
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    header = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    content = b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", 1000) + b"IDAT" + bytes(1000)
    for i in range(5):
        (tmp_path / f"ant/{i + 7}.png").write_bytes(content)
    with pytest.raises(UserError, match=r"\.png cannot be read as an image .*decompression bomb"):
        load_data(options(tmp_path))


def test_what_is_wrong_with_a_folder_is_told(tmp_path):
    def told(folder, message):
        with pytest.raises(UserError, match=message):
            load_data(options(folder))

    told(tmp_path / "none", r"data.path=.*none is no folder; give one that has a folder of images for each class")
    (tmp_path / "a").mkdir()
    told(tmp_path / "a", r"data.path: .*a holds no folders; give it a folder of images for each class")
    (tmp_path / "a/cat").mkdir()
    told(tmp_path / "a", r"holds one folder, cat; give it a folder of images for each class, two or more")
    (tmp_path / "a/dog").mkdir()
    told(tmp_path / "a", r"class folder .*a/cat holds no images; put some there, or remove it")
    write(tmp_path / "b", ("train", "val"))
    (tmp_path / "b/val/cat").rename(tmp_path / "b/val/dog")
    told(tmp_path / "b", r"class cat of .*b/train is not in .*b/val; give both parts the same classes")
    write(tmp_path / "c", each=1)
    told(tmp_path / "c", r"data.test_fraction=0.2 holds out 0 of 2 samples")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"path": None}, "data.path is missing; set data.path=FOLDER"),
        ({"path": ""}, "data.path is missing"),
        ({"size": 0}, "data.size=0 is too small"),
        ({"test_fraction": 1.0}, "data.test_fraction=1.0 is no fraction"),
    ],
)
def test_impossible_options_are_named(wrong, message):
    with pytest.raises(UserError, match=message):
        ImageFolderOptions(**{"path": "here", **wrong}).check()
