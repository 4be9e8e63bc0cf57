"""What all messages are."""

from __future__ import annotations

import msgspec


class Wire(msgspec.Struct, array_like=True, gc=False):
    """Base of all messages: positional on the wire, and kept from the garbage collector (they hold no cycles)."""


class Batch(Wire):
    """A message that is nothing but a list: what is posted to the same peer before the next flush joins it."""

    items: list[msgspec.Raw]
