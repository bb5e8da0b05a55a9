"""How a large read is cut for several threads."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.checksums import BLOCK_BYTES
from penstock.here import PART_BYTES, _cut
from penstock.memory import address_of


@given(length=st.integers(1, 5 * PART_BYTES), offset=st.integers(0, 3 * PART_BYTES))
def test_parts_follow_each_other_in_whole_blocks(length: int, offset: int) -> None:
    target = memoryview(bytearray(length))

    parts = _cut(target, offset)

    begins = address_of(target)
    for memory, at in parts:
        assert address_of(memory) - address_of(target) == at - offset
        assert address_of(memory) == begins
        assert 0 < len(memory) <= PART_BYTES + BLOCK_BYTES
        begins += len(memory)
    assert begins == address_of(target) + length
    assert all(at % BLOCK_BYTES == 0 for _, at in parts[1:])
