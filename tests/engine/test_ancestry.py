"""Which tasks are needed so that what lives can be made again: counting and cutting, decisions only."""

from collections import deque

from hypothesis import given, settings
from hypothesis import strategies as st

from rlflow.engine.ids import object_id, task_id
from rlflow.engine.messages import Shm
from rlflow.engine.node.ancestry import MOST_LINKS, Ancestry

SCOPE = b"0123456789"


def task(index):
    return task_id(SCOPE, index)


def result(index):
    return object_id(task(index), 0)


def copy(index):
    return Shm("w1-d0", index * 64, [10])


class World:
    """Tasks that live, and an ancestry that asks about them."""

    def __init__(self):
        self.living = set()
        self.ancestry = Ancestry(self.living.__contains__)
        self.specs = {}

    def made(self, index, *parents, by=""):
        self.living.add(task(index))
        self.specs[task(index)] = [task(parent) for parent in parents]
        return self.ancestry.made(task(index), self.specs[task(index)], by)

    def freed(self, index):
        self.living.discard(task(index))
        return [oid for oid, _ in self.ancestry.ended(task(index))]

    def needed(self):
        return {index for index in range(200) if self.ancestry.needs(task(index))}


def test_what_lives_needs_what_it_was_made_from():
    world = World()
    world.made(1, 0)
    world.made(2, 1)
    world.freed(1)
    assert world.needed() == {0, 1, 2}
    world.freed(2)
    assert world.needed() == set()


def test_two_that_share_an_ancestor():
    world = World()
    world.made(1, 0)
    world.made(2, 1)
    world.made(3, 1)
    world.freed(1)
    world.freed(2)
    assert world.needed() == {0, 1, 3}
    world.freed(3)
    assert len(world.ancestry) == 0 and world.needed() == set()


def test_a_task_without_refs_among_its_arguments_is_not_known():
    world = World()
    assert not world.made(1)
    assert len(world.ancestry) == 0


def test_a_put_has_its_process_and_its_task():
    world = World()
    world.made(1, by="driver")
    world.made(3, 2, by="w1")
    assert world.ancestry.put_by(task(1)) == ("driver", b"")
    assert world.ancestry.put_by(task(3)) == ("w1", task(2))
    assert world.ancestry.put_by(task(2)) is None
    world.freed(1)
    assert world.ancestry.put_by(task(1)) is None


def line(world, length):
    """A line of tasks each of which is freed when the next one is there; returns where it is to be cut."""
    cuts = []
    for index in range(1, length + 1):
        if world.made(index, index - 1):
            cuts.append(index)
            world.ancestry.copying(task(index), [result(index)])
        if index > 1:
            world.freed(index - 1)
    return cuts


def test_a_line_is_cut_when_the_copies_are_there():
    world = World()
    (cut,) = line(world, 100)
    assert cut == MOST_LINKS
    assert len(world.ancestry) == 100
    assert world.ancestry.copied(result(cut), copy(cut)) == (True, [])
    assert world.needed() == set(range(cut, 101))
    assert world.ancestry.copy(result(cut)) == copy(cut)
    assert world.ancestry.is_copy(copy(cut).segment, copy(cut).offset)
    assert world.freed(100) == [result(cut)]
    assert not world.ancestry.is_copy(copy(cut).segment, copy(cut).offset)


def test_the_copies_of_an_earlier_cut_go_with_the_next():
    world = World()
    first, second = line(world, 150)
    world.ancestry.copied(result(first), copy(first))
    assert world.ancestry.copied(result(second), copy(second)) == (True, [(result(first), copy(first))])


def test_all_results_must_be_copied():
    world = World()
    world.made(1, 0)
    both = [object_id(task(1), index) for index in range(2)]
    world.ancestry.copying(task(1), both)
    world.ancestry.copied(both[0], copy(1))
    assert world.needed() == {0, 1}
    world.ancestry.copied(both[1], copy(2))
    assert world.needed() == {1}


def test_a_copy_that_could_not_be_made():
    world = World()
    world.made(1, 0)
    world.ancestry.copying(task(1), [result(1)])
    world.ancestry.not_copied(result(1))
    assert world.ancestry.copied(result(1), copy(1)) == (False, [])
    assert world.needed() == {0, 1}


def test_a_copy_that_comes_too_late():
    world = World()
    world.made(1, 0)
    world.ancestry.copying(task(1), [result(1)])
    world.freed(1)
    assert world.ancestry.copied(result(1), copy(1)) == (False, [])


def restored(world):
    """The ancestry of a node that takes the other one's place."""
    keys = world.ancestry.changed | set(world.specs) | {result(index) for index in range(200)}
    rows = {key: world.ancestry.row(key) for key in keys}
    for key, row in list(rows.items()):
        if row is None or (isinstance(row, tuple) and not row[0] and row[1]):  # in the spec
            del rows[key]
    again = Ancestry(world.living.__contains__)
    assert again.restore(rows, list(world.living), lambda parent: world.specs.get(parent, [])) == []
    return again


def test_a_new_node_knows_the_same():
    world = World()
    (cut,) = line(world, 100)
    world.ancestry.copied(result(cut), copy(cut))
    world.made(151, by="driver")
    world.made(153, 152, by="w1")
    again = restored(world)
    assert {index for index in range(200) if again.needs(task(index))} == world.needed()
    assert again.copy(result(cut)) == copy(cut)
    assert again.put_by(task(151)) == ("driver", b"") and again.put_by(task(153)) == ("w1", task(152))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 7), st.integers(0, 7)), max_size=120))
def test_needed_is_what_living_ones_were_made_from(steps):
    """Against a walk over the whole graph; in the end nothing is left."""
    world = World()
    parents = {}
    alive = deque()
    for number, (makes, first, second) in enumerate(steps, 100):
        if makes or not alive:
            made_from = {list(alive)[each] for each in (first, second) if each < len(alive)}
            world.made(number, *made_from)
            parents[number] = made_from
            alive.append(number)
        else:
            alive.rotate(first)
            world.freed(alive.popleft())
        expected = set()
        stack = list(alive)
        while stack:
            index = stack.pop()
            if parents[index] or index not in alive:
                expected.add(index)
            expected |= parents[index]
            stack += parents[index]
        assert {index for index in parents if world.ancestry.needs(task(index))} == expected
    while alive:
        world.freed(alive.popleft())
    assert len(world.ancestry) == 0 and world.needed() == set()
