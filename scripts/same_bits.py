"""Whether two revisions record the same bits: ``python scripts/same_bits.py OLD [NEW]``.

Trains eight configs, 300 steps each on the CPU, with both revisions and compares every dataset of their records byte by
byte. OLD and NEW are anything that git knows; without NEW the working tree is compared as it is. What moves code and
should move no number has to pass.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import h5py
import numpy as np

ROOT = Path(__file__).parents[1]
STEPS = 300
COMMON = (f"train.steps={STEPS}", "train.eval_every=100", "data.batch_size=32")
CONFIGS = {
    "mlp": ("model=mlp",),
    "convnet": ("model=convnet", "model.norm=none"),
    "batchnorm": ("model=convnet", "model.norm=batch"),
    "transformer": ("model=transformer", "data=tokens"),
    "nesterov": ("model=mlp", "optim.momentum=0.9", "optim.nesterov=true"),
    "adamw": ("model=mlp", "optim=adamw"),
    "noise": ("model=mlp", "track.noise=10"),
    "float64": ("model=mlp", "train.precision=fp64"),
}


@contextmanager
def tree_of(revision: str | None) -> Iterator[Path]:
    """Folder that holds a revision; the working tree for None."""
    if revision is None:
        yield ROOT
        return
    with tempfile.TemporaryDirectory() as parent:
        tree = Path(parent) / "tree"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", tree, revision], cwd=ROOT, check=True)
        try:
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=ROOT, check=True)


def train(tree: Path, name: str, folder: Path) -> None:
    """Train a config with the code of a tree."""
    command = [sys.executable, "-m", "neuralmech", "train", *CONFIGS[name], *COMMON, f"hydra.run.dir={folder}"]
    environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, cwd=folder.parent, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} fails with the code in {tree}: {done.stderr.strip().splitlines()[-1]}")


def datasets(file: Path) -> dict[str, np.ndarray]:
    """Every dataset of a record by its path, as its rows of bytes."""
    found: dict[str, np.ndarray] = {}

    def keep(path: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            found[path] = np.asarray(item[()])

    with h5py.File(file) as record:
        record.visititems(keep)
    return found


def differences(old: dict[str, np.ndarray], new: dict[str, np.ndarray]) -> Iterator[str]:
    """What is not the same, in a line each."""
    for path in sorted(old.keys() | new.keys()):
        if path not in old or path not in new:
            yield f"{path}: only in the {'new' if path in new else 'old'} record"
        elif (old[path].shape, old[path].dtype) != (new[path].shape, new[path].dtype):
            yield f"{path}: {old[path].dtype} {old[path].shape}, now {new[path].dtype} {new[path].shape}"
        elif _bits(old[path]) != _bits(new[path]):
            yield f"{path}: other bits"


def _bits(array: np.ndarray) -> object:
    """Something equal only where every bit is: NaN equals NaN, and −0 is not 0."""
    return array.tolist() if array.dtype == object else array.tobytes()  # texts have pointers for bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("old", help="revision to compare with, as git names it")
    parser.add_argument("new", nargs="?", help="revision to compare; by default the working tree")
    parser.add_argument("--only", nargs="+", choices=CONFIGS, default=list(CONFIGS), metavar="CONFIG")
    chosen = parser.parse_args()
    differ = False
    with ExitStack() as stack:
        trees = [stack.enter_context(tree_of(revision)) for revision in (chosen.old, chosen.new)]
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in chosen.only:
            folders = [place / f"{side}-{name}" for side in ("old", "new")]
            for tree, folder in zip(trees, folders, strict=True):
                train(tree, name, folder)
            old, new = (datasets(folder / "record.h5") for folder in folders)
            lines = list(differences(old, new))
            differ = differ or bool(lines)
            print(f"{name}: {len(new)} datasets, " + ("; ".join(lines) if lines else "the same bits"), flush=True)
    raise SystemExit(int(differ))


if __name__ == "__main__":
    main()
