"""Sizes of blocks and segments: those that do not go together are refused."""

import pytest

from elementsckpt.format.sizes import Sizes


@pytest.mark.parametrize(
    "sizes", [{"block": 32 << 20}, {"small": 2 << 20}, {"arena": 512 << 10}]
)
def test_blocks_hold_what_is_small_and_have_room(sizes):
    with pytest.raises(ValueError, match="a block holds each small leaf"):
        Sizes(**sizes)
