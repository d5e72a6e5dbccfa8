import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipeline.store.digest import digest

blocks = hnp.arrays(
    st.sampled_from([np.float64, np.float32, np.int64, np.uint8]),
    hnp.array_shapes(min_dims=0, min_side=0, max_side=4),
)


@given(blocks)
def test_it_is_of_the_values_whatever_their_layout(block):
    assert digest(block) == digest(block.copy(order="F"))
    assert digest(block) == digest(block.astype(block.dtype.newbyteorder()))
    assert digest(block) == digest(np.stack([block, block], axis=-1)[..., 0])
    assert len(digest(block)) == 32


@given(blocks.filter(lambda block: block.size > 0), st.data())
def test_every_bit_counts(block, data):
    changed = block.copy()
    octets = changed.reshape(-1).view(np.uint8)
    octets[data.draw(st.integers(0, octets.size - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert digest(changed) != digest(block)


@pytest.mark.parametrize(
    "other", [np.zeros((3, 2)), np.zeros(6), np.zeros((2, 3), np.int64), np.zeros((2, 3, 1))]
)
def test_shape_and_dtype_count(other):
    assert digest(other) != digest(np.zeros((2, 3)))
