"""Whether parameters are what a flat copy of them is: said of bits, wherever one of them differs."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralmech.charges import cpu_strips
from neuralmech.charges.cpu_kernels import AT_ONCE
from neuralmech.charges.cpu_same import Same
from neuralmech.symmetry.layout import Layout

SIZES = st.sampled_from([1, 7, AT_ONCE - 1, AT_ONCE, AT_ONCE + 1, 3 * AT_ONCE])
SHAPES = st.one_of(SIZES.map(lambda n: (n,)), st.tuples(st.integers(1, 5), SIZES))
TURNED = torch.channels_last


def copied(shapes, dtype, generator):
    """Tensors of some shapes in the order of their layout, and the flat vector of them."""
    layout = Layout.by_shape({f"p{n}": shape for n, shape in enumerate(shapes)})
    tensors = [torch.randn(shape, dtype=dtype, generator=generator) for shape in layout.shapes.values()]
    return layout, tensors, torch.cat([x.flatten() for x in tensors])


@settings(deadline=None, max_examples=60)
@given(data=st.data(), shapes=st.lists(SHAPES, min_size=1, max_size=5), threads=st.integers(1, 3))
def test_one_bit_of_one_entry_is_seen(data, shapes, threads):
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]))
    layout, tensors, flat = copied(shapes, dtype, torch.Generator().manual_seed(0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neuralmech.charges.cpu_same.threads_for", lambda _: threads)
        same = Same(layout, flat)
    assert same.bits(tensors)
    number = data.draw(st.integers(0, len(tensors) - 1))
    entry = data.draw(st.integers(0, tensors[number].numel() - 1))
    bits = tensors[number].view(-1).numpy().view(np.uint32)
    bits[entry * dtype.itemsize // 4] ^= np.uint32(1 << data.draw(st.integers(0, 31)))
    assert not same.bits(tensors)


@pytest.mark.parametrize("entry", [(0, 0, 0, 0), (1, 2, 3, 4)])
def test_tensors_that_lie_otherwise_are_compared_too(entry):
    layout, tensors, flat = copied([(2, 3, 4, 5), (6,)], torch.float32, torch.Generator().manual_seed(0))
    same = Same(layout, flat)
    tensors = [x.to(memory_format=TURNED) if x.dim() == 4 else x for x in tensors]
    assert same.bits(tensors)
    turned = next(x for x in tensors if x.dim() == 4)
    assert not turned.is_contiguous()
    turned[entry] += 1
    assert not same.bits(tensors)


def test_threads_share_a_large_vector():
    """As many as PyTorch has, and every entry is some thread's: the first, the last, and those beside each cut."""
    size = 2 * cpu_strips.SERIAL + 1
    layout, tensors, flat = copied([(size,), (3,)], torch.float32, torch.Generator().manual_seed(0))
    same, total = Same(layout, flat), sum(math.prod(shape) for shape in layout.shapes.values())
    for place in (0, total // 2 - 1, total // 2, total // 2 + 1, total - 1):
        before = flat[place].item()
        flat[place] = before + 1
        assert not same.bits(tensors)
        flat[place] = before
    assert same.bits(tensors)
