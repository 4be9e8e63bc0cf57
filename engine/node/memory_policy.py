"""Who is killed when memory runs out, and when to look again. No I/O.

Before the kernel runs out of memory and kills whom it likes (the driver, a database of somebody else), one worker is
killed that can be run again. Which one:

1. an idle worker that kept as much as any other, since nobody misses it;
2. then what can be run again, before what cannot;
3. then the largest, since one victim should do. Sizes within a factor of two count as equal, and of those the newest
   goes: it has the least to lose, and the oldest always comes to its end.

Rejected: to look at fixed times. What is free cannot be filled faster than memory is cleared, so the more there is,
the longer nobody needs to look; a node far from its limit is hardly ever woken.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

FASTEST = 1.5e9
"""Bytes a second at which one CPU gets fresh memory at most: the kernel has to clear it."""

SHORTEST = 0.25
LONGEST = 10.0
"""Seconds between two looks."""


@dataclass(frozen=True)
class Candidate:
    """A worker process that could be killed."""

    worker: str
    rss: int
    """Bytes of its own: without what it shares with others."""
    age: int
    """Number of its task in order of submission; the newest is the highest."""
    idle: bool = False
    retriable: bool = False


def seconds_to_next_look(headroom: float, cpus: float) -> float:
    """How long the limit cannot be reached, with ``headroom`` bytes left."""
    return min(LONGEST, max(SHORTEST, headroom / (FASTEST * max(1.0, cpus))))


def victim(candidates: Iterable[Candidate]) -> Candidate | None:
    """See the module's essay."""
    there = list(candidates)
    largest = max((candidate.rss for candidate in there), default=0)
    there = [candidate for candidate in there if not candidate.idle or 2 * candidate.rss >= largest]

    def rank(candidate: Candidate) -> tuple[bool, bool, int, int]:
        return candidate.idle, candidate.retriable, candidate.rss.bit_length(), candidate.age

    return max(there, key=rank, default=None)
