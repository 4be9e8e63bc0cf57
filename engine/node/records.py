"""What the directory keeps of an object, what is remembered of that, and what it says when objects end."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..messages import Shm, Value, Wire


class Record:
    """A tracked object."""

    __slots__ = ("copies", "holders", "owner", "released", "value", "written")

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.value: Value | None = None
        self.released = False
        self.holders: dict[bytes, int] = {}
        self.copies: tuple[Shm, ...] = ()
        """Earlier ones, of an owner that died and put the object again when it was run once more."""
        self.written = False
        """A snapshot was taken of it."""


class Snapshot(Wire):
    """A record, as it is remembered."""

    owner: str
    released: bool
    value: Value | None
    in_store: bool
    """The value is the one that the control store has."""
    holders: dict[bytes, int]
    copies: tuple[Shm, ...]
    lost: list[bytes] | None = None
    """What was inside, if its memory is gone."""


@dataclass
class Freed:
    """What became free: blocks, and objects (for actor handles)."""

    blocks: list[Shm] = field(default_factory=list)
    objects: list[bytes] = field(default_factory=list)
    unseen: list[bytes] = field(default_factory=list)
    """Objects that are needed no more, of which nothing was known here: they may be to come."""
    forgotten: list[bytes] = field(default_factory=list)
    """Objects of which nothing was known but their holders, that have none any more."""

    def add(self, more: Freed) -> None:
        self.blocks += more.blocks
        self.objects += more.objects
        self.unseen += more.unseen
        self.forgotten += more.forgotten
