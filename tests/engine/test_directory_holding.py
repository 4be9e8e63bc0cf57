"""Counting holders over several connections: whatever the order of arrival, nothing goes early, everything goes.

Each process speaks to the node over a connection of its own, which keeps its order; between connections there is
none. What the protocol promises is only this: who lends a ref adds the borrower's count before it gives up its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from hypothesis import given, settings
from hypothesis import strategies as st

from rlflow.engine.messages import Inline, Shm
from rlflow.engine.node.directory import Directory
from rlflow.engine.node.records import Freed

INNER, OUTER = b"inner", b"outer"
ORDER = st.lists(st.integers(0, 1000), min_size=60, max_size=60)
LENDERS = st.lists(st.integers(0, 100), max_size=6)
"""The first borrower borrows from the owner (0), each later one from the owner or an earlier borrower."""

Event = Callable[[], Freed | None]


class Node:
    """A directory, with what the daemon does around it."""

    def __init__(self) -> None:
        self.directory = Directory()
        self.existing: set[bytes] = set()
        self.freed: list[bytes] = []
        self.blocks = 0

    def hears(self, event: Event) -> None:
        freed = event()
        if freed is not None:
            self.blocks += len(freed.blocks)
            self.freed += [oid for oid in freed.objects if oid in self.existing]
            for oid in freed.unseen:
                if oid not in self.existing:
                    self.directory.unwanted(oid)

    def exists(self, object_id: bytes, value: Shm | Inline) -> Freed:
        self.existing.add(object_id)
        return self.directory.exists(object_id, value, "owner")[2]


def connections(node: Node, object_id: bytes, lenders: list[int]) -> list[list[Event]]:
    """What the owner and each borrower say, in their order."""
    hold = partial(node.directory.hold, object_id)
    said: list[list[Event]] = [[]]
    for i, lender in enumerate(lenders):
        name = f"w{i}".encode()
        said[lender % len(said)].append(partial(hold, name, 1))
        said.append([])
    said[0].append(partial(node.directory.release, object_id))
    for i, events in enumerate(said[1:]):
        events.append(partial(hold, f"w{i}".encode(), -1))
    return said


def interleaved(said: list[list[Event]], order: list[int]) -> list[Event]:
    said = [list(events) for events in said if events]
    merged = []
    for choice in order:
        if not said:
            break
        events = said[choice % len(said)]
        merged.append(events.pop(0))
        if not events:
            said.remove(events)
    for events in said:
        merged += events
    return merged


@settings(deadline=None)
@given(LENDERS, ORDER)
def test_freed_with_the_last_word_and_not_before(lenders, order):
    node = Node()
    said = [*connections(node, INNER, lenders), [partial(node.exists, INNER, Shm("p-0", 0, [10_000]))]]
    events = interleaved(said, order)
    for event in events[:-1]:
        node.hears(event)
        assert node.blocks == 0
    node.hears(events[-1])
    assert node.blocks == 1 and node.freed == [INNER]
    assert not any(node.directory.census().values())


@settings(deadline=None)
@given(LENDERS, ORDER)
def test_small_objects_leave_no_trace(lenders, order):
    node = Node()
    said = [*connections(node, INNER, lenders), [partial(node.exists, INNER, Inline(b"small"))]]
    for event in interleaved(said, order):
        node.hears(event)
    assert not any(node.directory.census().values())


@settings(deadline=None)
@given(LENDERS, LENDERS, st.booleans(), ORDER)
def test_what_is_inside_outlives_its_container_where_somebody_took_it_out(outer, inner, taken_out, order):
    """The first borrower of the container takes the inner ref out before it drops the container."""
    node = Node()
    said = connections(node, OUTER, outer)
    for i, events in enumerate(connections(node, INNER, inner)):
        if i < len(said):
            said[i] = events + said[i] if i else said[i] + events
        else:
            said.append(events)
    said[0].insert(0, partial(node.directory.hold, INNER, OUTER, 1))  # the owner saw the result before it released it
    if taken_out and outer:
        said[1].insert(0, partial(node.directory.hold, INNER, b"reader", 1))
        said[1].append(partial(node.directory.hold, INNER, b"reader", -1))
    said.append([
        partial(node.exists, INNER, Shm("p-0", 0, [10_000])), partial(node.exists, OUTER, Inline(b"", [], [INNER])),
    ])
    for event in interleaved(said, order):
        node.hears(event)
        assert INNER not in node.freed or OUTER in node.freed
    assert sorted(node.freed) == [INNER, OUTER] and node.blocks == 1
    assert not any(node.directory.census().values())


@settings(deadline=None)
@given(LENDERS, ORDER, st.booleans())
def test_the_last_borrower_may_die_at_any_time(lenders, order, late):
    """Its last words are lost or come late; both must count for nothing once it is known to be dead."""
    node = Node()
    said = connections(node, INNER, [*lenders, 0])
    name = f"w{len(lenders)}"
    goodbye = said[-1]
    said[-1] = [partial(node.directory.process_died, name, {}), *(goodbye if late else [])]
    said.append([partial(node.exists, INNER, Shm("p-0", 0, [10_000]))])
    events = interleaved(said, order)
    for event in events:
        node.hears(event)
    assert node.blocks == 1
    assert not any(node.directory.census().values())


@settings(deadline=None)
@given(LENDERS, ORDER)
def test_the_owner_may_die_at_any_time_after_it_lent(lenders, order):
    node = Node()
    said = connections(node, INNER, lenders)
    said[0][-1] = partial(node.directory.process_died, "owner", {})
    said.append([partial(node.exists, INNER, Shm("p-0", 0, [10_000]))])
    events = interleaved(said, order)
    for event in events[:-1]:
        node.hears(event)
        assert node.blocks == 0
    node.hears(events[-1])
    assert node.blocks == 1
    assert not any(node.directory.census().values())


def test_an_object_that_is_put_again_by_its_makers_next_attempt() -> None:
    """Both copies live until nobody needs the object, whoever came first to let it go."""
    directory = Directory()
    old, new = Shm("w1-0", 0, [100]), Shm("w2-0", 64, [100])
    directory.exists(OUTER, old, "w1")
    directory.hold(OUTER, b"driver", 1)
    assert not directory.process_died("w1", {}).blocks
    directory.exists(OUTER, new, "w2")
    assert not directory.hold(OUTER, b"driver", -1).blocks  # its new owner has not released it
    assert directory.known(OUTER) == new
    assert directory.release(OUTER).blocks == [new, old]
    assert not any(directory.census().values())
