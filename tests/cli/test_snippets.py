"""Every command and every piece of Python in the README and the pages is carried out, only shorter."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import neuralmech
import ranks
from command_line import SMALL
from image_files import make_cifar

pytestmark = pytest.mark.usefixtures("found_once")

ROOT = Path(neuralmech.__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
# What stands for names of runs, and for lengths that nobody waits for.
INSTEAD = {
    "outputs/2026-01-31/12-00-00": "run",
    "resume=outputs/2026-01-31/12-00-00": "resume=run",
    "live=true": "live=true every=1",
    "outputs/multirun/…": "sweep",
    "outputs/mine": "run",
    "outputs/first": "run",
    "RUN": "run",
    "train.steps=20000": "train.steps=40",
    "checkpoint=1000": "checkpoint=0",
    "data.batch_size=128": "data.batch_size=16",
    "steps=1000": "steps=10",
    "model=torchvision": "model=torchvision model.arch=resnet18",
}
TRAIN = ["train.steps=2", "data.batch_size=16", "device=cpu"]
OTHERS = ("make", "pip", "python")  # what installs, and what CI runs
MINE = """
import torch
from torch import nn
from torch.nn import functional as F

class MyNet(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.ReLU(), nn.Linear(width, 10))

    def forward(self, x):
        return self.net(x)

def my_data(size=100):
    x = torch.randn(size, 1, 8, 8)
    y = (x[:, 0, 0, 0] > 0).long()
    return x[20:], y[20:], x[:20], y[:20]

def focal(outputs, targets, gamma=2):
    return ((1 - torch.exp(-F.cross_entropy(outputs, targets, reduction="none"))) ** gamma).mean()
"""


def blocks(kind, page):
    """Pieces of a page in a language."""
    return re.findall(rf"^```{kind}\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def commands():
    """Each command once, by the first page that has it; what is the same when it is shortened is the same."""
    known = set()
    for page in PAGES:
        for block in blocks("sh", page):
            lines = [line.split(" #")[0].strip() for line in block.splitlines()]
            for line in (part.strip() for whole in filter(None, lines) for part in whole.split("&&")):
                does = tuple(INSTEAD.get(word, word) for word in line.split())
                if does not in known:
                    known.add(does)
                    yield pytest.param(line, id=f"{page.name}: {line}")


def words_of(line):
    """A command's words, shorter."""
    words = [w for word in line.split() for w in INSTEAD.get(word, word).split()]
    words = [word.strip("'") for word in words]
    program, command, *rest = words[words.index("neuralmech") :]  # behind torchrun's own
    assert program == "neuralmech"
    resumes = any(w.startswith("resume=") for w in rest)
    if command == "train" and not resumes:
        folder = "hydra.sweep.dir=made" if "--multirun" in rest else "hydra.run.dir=made"
        given = {w.partition("=")[0] for w in rest}
        pool = ["hydra.launcher.n_jobs=1"] if "hydra/launcher=pool" in rest else []  # each imports torch
        rest = [*rest, *(o for o in [*TRAIN, *pool, folder] if o.partition("=")[0] not in given)]
    return [command, *rest]


@pytest.fixture
def workplace(tmp_path, trained, monkeypatch):
    """A folder with code of one's own, a run and a sweep in it, and data in the place for them."""
    (tmp_path / "my_package.py").write_text(MINE)
    shutil.copytree(trained / "run", tmp_path / "run")
    for job in ("0", "1"):
        shutil.copytree(trained / "run", tmp_path / "sweep" / job)
    (tmp_path / "data" / "cifar10").mkdir(parents=True)
    make_cifar(tmp_path / "data" / "cifar10", monkeypatch)
    (tmp_path / "own.txt").write_text("the cat sat on the mat. " * 200)
    for name in ("ant", "cat"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(12):
            Image.new("RGB", (40, 36), (20 * i, 99, 0)).save(tmp_path / "photos" / name / f"{i}.jpg")
    monkeypatch.setenv("NEURALMECH_DATA", str(tmp_path / "data"))
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def save_hub(hub, workplace):
    hub.disable_progress_bars()
    images = [Image.new("RGB", (8, 8), (10 * i, 99, 0)) for i in range(24)]
    features = hub.Features({"image": hub.Image(), "label": hub.ClassLabel(names=["ant", "cat"])})
    rows = hub.Dataset.from_dict({"image": images, "label": [0, 1] * 12}, features=features)
    hub.DatasetDict(train=rows, test=rows).save_to_disk(str(workplace / "saved"))


@pytest.mark.parametrize("line", list(commands()))
def test_a_command(line, workplace, command):
    if line.split()[0] in OTHERS:
        pytest.skip("no command of ours")
    for library in ("tensorboard", "wandb", "mlflow"):
        if f"logger={library}" in line:
            pytest.importorskip(library)
    if "data=hf" in line:
        save_hub(pytest.importorskip("datasets"), workplace)
    if "my_models" in line:
        pytest.importorskip("transformers")
        code = next(block for block in blocks("python", ROOT / "docs" / "data.md") if "def llama" in block)
        (workplace / "my_models.py").write_text(code)
    if line.startswith("torchrun"):
        code, out, err = ranks.ended(ranks.start(2, "-m", "neuralmech", *words_of(line), cwd=workplace))
    else:
        code, out, err = command(*words_of(line))
    assert code == 0, err
    assert out or err


def test_the_run_in_place_of_all_is_one_of_ours(trained):
    assert (trained / "run" / "record.h5").is_file()
    assert "train.steps=30" in SMALL  # and resumed ones go further


def python():
    for page in PAGES:
        for number, block in enumerate(blocks("python", page)):
            yield pytest.param(block, id=f"{page.name}: {number}")


@pytest.mark.parametrize("block", list(python()))
def test_a_piece_of_python(block, workplace, monkeypatch):
    """With the names that a reader has at that place."""
    if "transformers" in block:
        pytest.importorskip("transformers")
    for library in ("lightning", "accelerate"):
        if f"from {library}" in block:
            pytest.importorskip(library)
    if "to_xarray" in block:
        pytest.importorskip("xarray")
    monkeypatch.chdir(workplace)
    (workplace / "outputs").mkdir()
    shutil.copytree(workplace / "run", workplace / "outputs" / "run")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3))
    inputs, targets = torch.randn(16, 12), torch.randint(3, (16,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    names = {"model": model, "inputs": inputs, "targets": targets, "example_batch": inputs, "optimizer": optimizer}
    names["batches"] = [(inputs, targets)] * 3
    exec(compile(block, "a page", "exec"), {"torch": torch, "nn": nn, "neuralmech": neuralmech, **names})
