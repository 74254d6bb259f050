"""Small image data sets in the files' true formats, and a server to download them from."""

import gzip
import hashlib
import resource
import struct
import tarfile
import threading
import zipfile
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from neuralmech.data import images
from neuralmech.data.sources import REMOTES, TINY_NAME


class Server(SimpleHTTPRequestHandler):
    """Serves a folder in silence; what lies under ``cut/`` ends before it is complete."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        if not self.path.startswith("/cut/"):
            super().do_GET()
            return
        content = Path(self.translate_path(self.path.removeprefix("/cut"))).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])


@contextmanager
def served(folder):
    """Address of a server that shows a folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def limited_files(size):
    """No file, and no piece of shared memory, can grow past a size."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def publish(folder, monkeypatch, name):
    """Let a data set's files be those in a folder."""
    files = tuple(replace(remote, sha256=sha256(folder / remote.name)) for remote in REMOTES[name])
    monkeypatch.setitem(REMOTES, name, files)


def publish_at(addresses, monkeypatch, name):
    """Let a data set's files be had at some addresses alone."""
    files = tuple(replace(r, urls=tuple(address + r.name for address in addresses)) for r in REMOTES[name])
    monkeypatch.setitem(REMOTES, name, files)


def draw(rng, count, shape, classes):
    """Images that can be told apart by their class, and labels."""
    labels = rng.integers(classes, size=count, dtype=np.uint8)
    noise = rng.integers(128, size=(count, *shape))
    return (noise + (labels * (127 // max(classes - 1, 1)))[:, None, None, None]).astype(np.uint8), labels


def idx(array):
    sizes = struct.pack(f">{array.ndim}i", *array.shape)
    return gzip.compress(bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes())


def make_mnist(folder, monkeypatch, train=60, test=20):
    """Write the four files; returns (train_x, train_y, test_x, test_y)."""
    rng, arrays = np.random.default_rng(0), []
    for prefix, count in (("train", train), ("t10k", test)):
        x, y = draw(rng, count, (1, 28, 28), 10)
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(idx(x[:, 0]))
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(idx(y))
        arrays += [x, y]
    publish(folder, monkeypatch, "mnist")
    return arrays


def make_cifar(folder, monkeypatch, name="cifar10", train=80, test=20):
    """Write the archive; returns (train_x, train_y, test_x, test_y)."""
    archive, rng, arrays = images.CIFARS[name], np.random.default_rng(1), []
    path = folder / REMOTES[name][0].name
    with tarfile.open(path, "w:gz") as tar:
        for members, count in ((archive.train, train), (archive.test, test)):
            x, y = draw(rng, count, (3, 32, 32), min(archive.classes, 10))
            coarse = np.zeros((count, archive.labels - 1), dtype=np.uint8)
            records = np.concatenate([coarse, y[:, None], x.reshape(count, -1)], axis=1)
            for member, part in zip(members, np.array_split(records, len(members)), strict=True):
                info = tarfile.TarInfo(member)
                info.size = part.nbytes
                tar.addfile(info, BytesIO(part.tobytes()))
            arrays += [x, y]
    publish(folder, monkeypatch, name)
    return arrays


def make_tiny_imagenet(folder, monkeypatch, classes=3, each=4, test=6):
    """Write the archive, its classes not in the order of their names, one image grey."""
    rng, top = np.random.default_rng(2), TINY_NAME
    wnids = [f"n{9 - i:08d}" for i in range(classes)]
    with zipfile.ZipFile(folder / f"{top}.zip", "w") as archive:

        def image(name, mode="RGB"):
            pixels = rng.integers(256, size=(64, 64, 3) if mode == "RGB" else (64, 64), dtype=np.uint8)
            content = BytesIO()
            Image.fromarray(pixels).save(content, "jpeg")
            archive.writestr(f"{top}/{name}", content.getvalue())

        archive.writestr(f"{top}/wnids.txt", "\n".join(wnids) + "\n")
        for wnid in wnids:
            archive.writestr(f"{top}/train/{wnid}/{wnid}_boxes.txt", "x_0.JPEG\t0\t0\t63\t63\n")
            for i in range(each):
                image(f"train/{wnid}/images/{wnid}_{i}.JPEG", "L" if i == 1 else "RGB")
        labels = [wnids[i % classes] for i in range(test)]
        for i in range(test):
            image(f"val/images/val_{i}.JPEG")
            image(f"test/images/test_{i}.JPEG")
        rows = [f"val_{i}.JPEG\t{wnid}\t0\t0\t63\t63\n" for i, wnid in enumerate(labels)]
        archive.writestr(f"{top}/val/val_annotations.txt", "".join(rows))
    publish(folder, monkeypatch, "tinyimagenet")
