"""Blocks of a segment, against a model that knows every byte."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from rlflow.engine.store.allocator import ALIGNMENT, Allocator, align


class AllocatorMachine(RuleBasedStateMachine):
    """``self.bytes[i]``: the block that has byte ``i``, or None."""

    blocks = Bundle("blocks")

    @initialize(capacity=st.integers(0, 40 * ALIGNMENT))
    def begin(self, capacity):
        self.allocator = Allocator(capacity)
        self.bytes: list[int | None] = [None] * capacity
        self.sizes: dict[int, int] = {}

    @rule(target=blocks, size=st.integers(0, 12 * ALIGNMENT))
    def allocate(self, size):
        taken = max(align(size), ALIGNMENT)
        gaps = self.gaps()
        offset = self.allocator.allocate(size)
        if offset is None:
            assert all(length < taken for _, length in gaps)
            return None
        assert offset % ALIGNMENT == 0
        assert offset == min(start for start, length in gaps if length >= taken)  # the lowest, whose pages are warm
        assert self.bytes[offset : offset + taken] == [None] * taken
        self.bytes[offset : offset + taken] = [offset] * taken
        self.sizes[offset] = taken
        return offset

    @rule(offset=consumes(blocks))
    def free(self, offset):
        if offset is None:
            return
        self.allocator.free(offset)
        size = self.sizes.pop(offset)
        self.bytes[offset : offset + size] = [None] * size
        with pytest.raises(KeyError):
            self.allocator.free(offset)

    def gaps(self):
        """(offset, length) of the free stretches, lowest first."""
        found = []
        for i, owner in enumerate(self.bytes):
            if owner is None:
                if i and self.bytes[i - 1] is None:
                    found[-1][1] += 1
                else:
                    found.append([i, 1])
        return found

    @invariant()
    def books_balance(self):
        if hasattr(self, "allocator"):
            assert len(self.allocator) == len(self.sizes)
            assert self.allocator.used == len(self.bytes) - self.bytes.count(None)

    def teardown(self):
        if not hasattr(self, "allocator"):
            return
        for offset in list(self.sizes):
            self.allocator.free(offset)
        whole = len(self.bytes) // ALIGNMENT * ALIGNMENT
        if whole:
            assert self.allocator.allocate(whole) == 0  # one gap again


TestAllocator = AllocatorMachine.TestCase
TestAllocator.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_align():
    assert [align(size) for size in (0, 1, 63, 64, 65)] == [0, 64, 64, 64, 128]


def test_a_freed_block_is_used_again():
    allocator = Allocator(1024)
    first, second = allocator.allocate(300), allocator.allocate(300)
    allocator.free(first)
    assert allocator.allocate(300) == first
    allocator.free(second)
    assert allocator.allocate(310) == second


def test_what_was_never_allocated_cannot_be_freed():
    allocator = Allocator(1024)
    allocator.allocate(64)
    with pytest.raises(KeyError):
        allocator.free(64)
