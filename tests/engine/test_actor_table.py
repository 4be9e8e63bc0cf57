"""The table of actors: names, states, restarts."""

import msgspec
import pytest

from rlflow.engine.messages import ActorState, CreateActor
from rlflow.engine.node.actors import ALIVE, DEAD, LIVES_REMEMBERED, PENDING, Actor, ActorTable
from rlflow.engine.node.leases import Task


@pytest.fixture
def table() -> ActorTable:
    return ActorTable()


def add(table: ActorTable, id: bytes, name: str = "", namespace: str = "", max_restarts: int = 0) -> Actor:
    request = CreateActor(1, msgspec.Raw(b""), name, namespace, False, max_restarts, False, "Learner", {}, -1)
    actor = Actor(id, request, Task(id, b"class", {}, exclusive=True), "driver", restarts_left=max_restarts)
    table.add(actor)
    return actor


def test_an_actor_is_found_by_id_and_by_name(table):
    actor = add(table, b"a", "learner", "run")
    other = add(table, b"b", "learner", "another run")
    unnamed = add(table, b"c")
    assert table.get(b"a") is actor and table.get(b"c") is unnamed and table.get(b"?") is None
    assert table.named("run", "learner") is actor
    assert table.named("another run", "learner") is other
    assert table.named("run", "critic") is None
    assert table.named("", "") is None
    assert table.names() == [("run", "learner"), ("another run", "learner")]


def test_what_watchers_are_told(table):
    actor = add(table, b"a")
    assert actor.state == PENDING
    assert actor.message() == ActorState(b"a", "", "", b"", 0)
    table.started(actor, "w1")
    assert actor.state == ALIVE
    assert actor.message() == ActorState(b"a", "w1", "", b"", 0)
    table.died(actor, "it was killed", b"cause")
    assert actor.state == DEAD
    assert actor.message() == ActorState(b"a", "", "it was killed", b"cause", 0)


def test_descriptions_name_class_name_and_id(table):
    assert add(table, b"a", "learner").describe() == "actor Learner 'learner' (61)"
    assert add(table, b"b").describe() == "actor Learner (62)"


def test_the_name_of_a_dead_actor_is_free(table):
    first = add(table, b"a", "learner")
    table.died(first, "gone", b"")
    assert table.named("", "learner") is None and table.names() == []
    second = add(table, b"b", "learner")
    table.died(first, "gone", b"")  # once more: the name is another's now
    assert table.named("", "learner") is second


def test_the_name_of_an_actor_that_leaves_is_free(table):
    first = add(table, b"a", "learner")
    first.farewell = "it is time"
    assert table.named("", "learner") is None and table.names() == []
    second = add(table, b"b", "learner")
    assert table.named("", "learner") is second
    table.died(first, "gone", b"")
    assert table.named("", "learner") is second and table.names() == [("", "learner")]


def test_restarts_are_counted(table):
    actor = add(table, b"a", "learner", max_restarts=2)
    for incarnation in (1, 2):
        table.started(actor, f"w{incarnation}")
        assert table.may_restart(actor)
        assert (actor.state, actor.worker, actor.incarnation) == (PENDING, "", incarnation)
        assert table.named("", "learner") is actor  # it keeps its name between two lives
    table.started(actor, "w3")
    assert not table.may_restart(actor)
    assert (actor.state, actor.incarnation) == (ALIVE, 2)


def test_endless_restarts(table):
    actor = add(table, b"a", max_restarts=-1)
    assert all(table.may_restart(actor) for _ in range(100))
    assert actor.incarnation == 100 and actor.restarts_left == -1


@pytest.mark.parametrize("max_restarts", [0, 1, -1])
def test_an_actor_without_handles_is_not_restarted(table, max_restarts):
    actor = add(table, b"a", max_restarts=max_restarts)
    actor.farewell = "it is time"
    assert not table.may_restart(actor)
    assert actor.restarts_left == max_restarts


def test_the_living_are_counted(table):
    first, second = add(table, b"a"), add(table, b"b")
    table.started(first, "w1")
    assert table.living() == 2
    table.died(second, "gone", b"")
    assert table.living() == 1


def test_any_number_of_lives_takes_a_bounded_place(table):
    """And still it is known of each process whether the actor has lived in it, or one before it with the same id."""
    actor = add(table, b"a", max_restarts=-1)
    actor.born = 5
    lives = ["w3", "w6", *(f"w{number}" for number in range(9, 3000, 3))]
    forgotten = [older for worker in lives for older in actor.moves_to(worker)]
    assert actor.lives == lives[-LIVES_REMEMBERED:] and forgotten == lives[:-LIVES_REMEMBERED]
    assert actor.first_lives == ["w3"]
    assert all(actor.has_lived_in(worker) for worker in lives)
    assert not any(actor.has_lived_in(worker) for worker in ("w1", "w2", "w4", "w5"))
