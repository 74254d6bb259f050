"""Write a dataset's chunks past HDF5's filters: the same bytes, without the copies that these make on the way."""

from __future__ import annotations

import sys
from itertools import product

import h5py
import numpy as np
from numpy.typing import NDArray

from neuralmech.jit import EXACT, jit
from neuralmech.record.layout import CHECKSUM_BYTES

MODULUS = 65535
PIECE = 256  # words whose weighted sum fits 32 bits
WEIGHTS = np.arange(PIECE, 0, -1, dtype=np.uint32)


class ChunkWriter:
    """Writes rows that begin where a chunk does; HDF5 does it where chunks are compressed, too."""

    def __init__(self) -> None:
        self._room: dict[tuple[int, ...], NDArray[np.uint8]] = {}

    def write(self, dataset: h5py.Dataset, start: int, values: NDArray) -> None:
        """Write rows from `start`, the first of a chunk, to the end of the dataset; it grows where it must."""
        dataset.resize(start + len(values), axis=0)
        if not _is_plain(dataset):
            dataset[start:] = values
            return
        sides = [range(0, n, c) for n, c in zip(values.shape, dataset.chunks, strict=True)]
        for corner in product(*sides):
            part = values[tuple(slice(a, a + n) for a, n in zip(corner, dataset.chunks, strict=True))]
            content = self._chunk(dataset, part)
            dataset.id.write_direct_chunk((start + corner[0], *corner[1:]), content)

    def _chunk(self, dataset: h5py.Dataset, part: NDArray) -> NDArray[np.uint8]:
        """The bytes of a chunk, zeros where the part does not reach, and their checksum."""
        shape = dataset.chunks
        if shape not in self._room:
            self._room[shape] = np.empty(8 * int(np.prod(shape)) + CHECKSUM_BYTES, dtype=np.uint8)
        content = self._room[shape]
        numbers = content[:-CHECKSUM_BYTES].view(dataset.dtype).reshape(shape)
        if part.shape != shape:
            numbers[...] = 0
        numbers[tuple(map(slice, part.shape))] = part
        content[-CHECKSUM_BYTES:] = np.array([fletcher32(content[:-CHECKSUM_BYTES])], "<u4").view(np.uint8)
        return content


def _is_plain(dataset: h5py.Dataset) -> bool:
    """Whether chunks are numbers of eight bytes as they are in memory, and their checksum."""
    only_checked = dataset.fletcher32 and dataset.compression is None and not dataset.shuffle
    return only_checked and dataset.dtype.isnative and dataset.dtype.itemsize == 8 and sys.byteorder == "little"


def fletcher32(content: NDArray[np.uint8]) -> int:
    """HDF5's checksum of an even number of bytes: Fletcher's sums of 16-bit words, the first byte the higher one.

    Sums are modulo 2¹⁶ − 1, where to swap a word's bytes is to multiply it by 2⁸. A sum that is 0 modulo that, but of
    words that are not all 0, is 2¹⁶ − 1.

    Examples
    --------
    >>> hex(fletcher32(np.frombuffer(b"abcdef", dtype=np.uint8)))
    '0x50562a2d'
    """
    first, second = _sums(content.view("<u2"), WEIGHTS)
    low, high = (int(total) * 256 % MODULUS or (MODULUS if total else 0) for total in (first, second))
    return high << 16 | low


@jit(EXACT, nogil=True)
def _sums(words, weights):
    """Σ wᵢ and Σ (n − i) wᵢ, each but for multiples of 2¹⁶ − 1; 0 only if all words are."""
    first, second, modulus = np.uint64(0), np.uint64(0), np.uint64(MODULUS)
    for start in range(0, words.size, PIECE):
        n = min(PIECE, words.size - start)
        part, falling = words[start : start + n], weights[PIECE - n :]
        total, weighted = np.uint32(0), np.uint32(0)
        for k in range(n):
            total += np.uint32(part[k])
            weighted += falling[k] * np.uint32(part[k])
        second += first * np.uint64(n) + np.uint64(np.uint32(weighted))
        first += np.uint64(np.uint32(total))
        if second > np.uint64(1 << 40):
            second = second % modulus + modulus
            first = first % modulus + modulus if first else first
    return first, second
