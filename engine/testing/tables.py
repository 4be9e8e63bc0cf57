"""How many entries the tables of a process have: what grows with tasks, functions, actors or processes shows here.

``table_sizes(backend)`` walks from an object of the engine through the attributes of all that belong to it and adds up
the entries of its dicts, sets, lists and queues by the path at which they are. A process's memory tells of a leak after
hundreds of thousands of entries, this after a few dozen. ``node_table_sizes()`` asks the node for its own.

Rejected: a list of the tables by hand. The one that leaks is the one that nobody thought of.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from .. import api

CONTAINERS = (dict, set, frozenset, list, deque)
PACKAGE = __name__.partition(".")[0] + "."


def node_table_sizes() -> dict[str, float]:
    """:func:`table_sizes` of the node of the engine that is running."""
    found: dict[str, float] = api.current_backend().questions.amounts("tables")  # type: ignore[attr-defined]
    return found


def table_sizes(root: object) -> dict[str, float]:
    """Entries of all tables below an object, by path; ``*`` stands for any entry."""
    found: dict[str, float] = {}
    seen: set[int] = set()
    left = [("", root)]
    while left:
        path, thing = left.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, CONTAINERS):
            found[path] = found.get(path, 0) + len(thing)
            entries = thing.values() if isinstance(thing, dict) else thing
            left += [(f"{path}.*", entry) for entry in list(entries)]
        elif type(thing).__module__.startswith(PACKAGE):
            left += [(f"{path}.{name}" if path else name, value) for name, value in _attributes(thing)]
    return found


def _attributes(thing: object) -> Iterator[tuple[str, Any]]:
    yield from list(getattr(thing, "__dict__", {}).items())
    for cls in type(thing).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(thing, name):
                yield name, getattr(thing, name)
