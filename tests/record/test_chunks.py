"""Chunks that go past HDF5's filters are, byte for byte, those that HDF5 writes itself."""

import h5py
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from neuralmech.record.chunks import ChunkWriter, fletcher32

NUMBERS = st.sampled_from([0.0, -0.0, 1.0, np.nan, np.inf, 5e-324, *np.frombuffer(b"\xff" * 8 + bytes(7) + b"\xff")])


def files():
    return tuple(h5py.File(str(k), "w", driver="core", backing_store=False, rdcc_nbytes=0) for k in range(2))


@settings(deadline=None, max_examples=60)
@given(data=st.data(), chunk=st.tuples(st.integers(1, 9), st.integers(1, 5)), width=st.integers(5, 12))
def test_chunks_are_those_of_hdf5(data, chunk, width):
    compression = data.draw(st.sampled_from([None, None, "lzf"]))
    options = {"maxshape": (None, width), "chunks": chunk, "fletcher32": True, "compression": compression}
    ours, theirs = files()
    with ours, theirs:
        mine, wanted = (f.create_dataset("x", (0, width), "f8", **options) for f in (ours, theirs))
        writer, start = ChunkWriter(), 0
        for _ in range(3):  # rows that do not fill the last chunk are written again with those that follow
            rows = data.draw(st.integers(1, 20))
            shape = (rows, 2 * width)
            values = data.draw(arrays.arrays("f8", shape, elements=NUMBERS | st.floats(width=64)))[:, ::2]
            writer.write(mine, start, values)
            wanted.resize(start + rows, axis=0)
            wanted[start:] = values
            start += rows // chunk[0] * chunk[0]
        assert np.array_equal(mine[:], wanted[:], equal_nan=True)  # checks the checksums, too
        assert mine.id.get_num_chunks() == wanted.id.get_num_chunks()
        for k in range(mine.id.get_num_chunks()):
            place = mine.id.get_chunk_info(k).chunk_offset
            assert place == wanted.id.get_chunk_info(k).chunk_offset
            if place[0] + chunk[0] <= mine.shape[0] and place[1] + chunk[1] <= width:  # else what is behind is anything
                assert mine.id.read_direct_chunk(place) == wanted.id.read_direct_chunk(place)


LONG = st.integers(0, 99).map(lambda seed: np.random.default_rng(seed).bytes(100_000 + 2 * seed))
SHORT = st.binary(max_size=2000).map(lambda content: content[: len(content) // 2 * 2])


@settings(deadline=None, max_examples=60)
@given(content=SHORT | LONG | st.integers(0, 2000).map(lambda words: bytes(2 * words)))
def test_the_checksum_is_fletchers(content):
    first = second = 0
    for k in range(0, len(content), 2):
        first += int.from_bytes(content[k : k + 2], "big")
        second += first
    sums = [total and (total % 65535 or 65535) for total in (first, second)]
    assert fletcher32(np.frombuffer(content, dtype=np.uint8)) == sums[1] << 16 | sums[0]
