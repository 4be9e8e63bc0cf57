"""The names of processes that are gone, however many there were.

What is still on its way for or from a dead process must not count, and nobody can say when the last of it has come. So
their names are remembered for as long as the session, and a session may have a process for each of a million tasks.
But names are ``w1``, ``w2``, ..., none is used twice, and all but those that live are gone: the numbers make few runs,
at most one more than there are living processes with older names.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable


class Departed:
    """A set of names, as text or as bytes, which only grows."""

    def __init__(self) -> None:
        self._bounds: list[int] = []
        """First number of a run, first number behind it, and so on."""
        self._others: set[str] = set()
        """Names of another form."""

    @classmethod
    def all_of(cls, count: int, but: Iterable[str]) -> Departed:
        """``w1`` to ``w<count>``, except these."""
        found = cls()
        living = {process_number(name) for name in but}
        for each in range(1, count + 1):
            if each not in living:
                found._add(each)
        return found

    def add(self, name: str) -> None:
        number = process_number(name)
        if number is None:
            self._others.add(name)
        elif name not in self:
            self._add(number)

    def _add(self, number: int) -> None:
        bounds = self._bounds
        at = bisect_right(bounds, number)
        follows = at > 0 and bounds[at - 1] == number
        precedes = at < len(bounds) and bounds[at] == number + 1
        if follows and precedes:
            del bounds[at - 1:at + 1]
        elif follows:
            bounds[at - 1] = number + 1
        elif precedes:
            bounds[at] = number
        else:
            bounds[at:at] = [number, number + 1]

    def __contains__(self, name: str | bytes) -> bool:
        number = process_number(name)
        if number is not None:
            return bool(bisect_right(self._bounds, number) % 2)
        if not self._others:
            return False
        return (name if isinstance(name, str) else name.decode(errors="replace")) in self._others


def process_number(name: str | bytes) -> int | None:
    """Of a worker: how many there had been with it. None for others."""
    if name[:1] in ("w", b"w") and name[1:].isdigit():
        return int(name[1:])
    return None
