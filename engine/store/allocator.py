"""Where in a segment a block goes: first fit from the bottom, neighbours merged on free. No I/O.

Lowest-address-first reuses the same pages again and again, which are touched and in the cache (facts: 16 GB/s
into warm pages, 1.5 GB/s into fresh ones). A segment holds few blocks, all of them large, so a scan is cheap.
"""

from __future__ import annotations

from bisect import bisect_left

ALIGNMENT = 64


def align(size: int) -> int:
    return (size + ALIGNMENT - 1) & -ALIGNMENT


class Allocator:
    """Blocks of one segment of ``capacity`` bytes."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._free: list[tuple[int, int]] = [(0, capacity)]  # (offset, size), sorted, never adjacent
        self._used: dict[int, int] = {}

    def allocate(self, size: int) -> int | None:
        """Offset of a new block, or None when no gap is large enough."""
        size = max(align(size), ALIGNMENT)
        for i, (offset, gap) in enumerate(self._free):
            if gap >= size:
                if gap == size:
                    del self._free[i]
                else:
                    self._free[i] = (offset + size, gap - size)
                self._used[offset] = size
                return offset
        return None

    def free(self, offset: int) -> None:
        """Gives a block back; raises KeyError when there is none at ``offset``."""
        size = self._used.pop(offset)
        i = bisect_left(self._free, (offset, 0))
        if i < len(self._free) and self._free[i][0] == offset + size:
            size += self._free.pop(i)[1]
        if i > 0 and sum(self._free[i - 1]) == offset:
            offset, before = self._free[i - 1]
            self._free[i - 1] = (offset, before + size)
        else:
            self._free.insert(i, (offset, size))

    def gaps(self) -> list[tuple[int, int]]:
        """What is free: (offset, size)."""
        return list(self._free)

    @property
    def used(self) -> int:
        return sum(self._used.values())

    def __len__(self) -> int:
        return len(self._used)
