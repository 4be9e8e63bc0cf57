"""The object directory fed by hand: who waits, who holds, what is freed. See also ``test_directory_holding.py``."""

from itertools import pairwise

import pytest

from rlflow.engine.departed import Departed
from rlflow.engine.messages import Dep, Failed, Inline, Shm
from rlflow.engine.node.directory import Directory
from rlflow.engine.node.leases import Task


class WaitingFor:
    """What the directory looks at in a task's payload."""

    def __init__(self, deps: list[Dep]) -> None:
        self.spec = self
        self.deps = deps


def task(name: str, *deps: Dep) -> Task:
    return Task(name.encode(), b"f", {"CPU": 1}, payload=WaitingFor(list(deps)))


def large(segment: str = "w1-0", offset: int = 0, refs: tuple[bytes, ...] = ()) -> Shm:
    return Shm(segment, offset, [10_000], list(refs))


def small(*refs: bytes) -> Inline:
    return Inline(b"value", [], list(refs))


@pytest.fixture
def directory() -> Directory:
    return Directory()


# ---------------------------------------------------------------- waiting


def test_a_task_is_ready_when_its_last_argument_exists(directory):
    waiting = task("t", Dep(0, b"a"), Dep("key", b"b"), Dep(1, b"known", small()))
    directory.wait_for(waiting, waiting.payload.deps[:2])
    assert directory.unresolved(waiting) == [b"a", b"b"]
    assert directory.exists(b"b", small(), "driver")[0] == []
    assert directory.unresolved(waiting) == [b"a"]
    error = Failed(b"broken")
    assert directory.exists(b"a", error, "driver")[0] == [waiting]
    assert directory.resolved(b"t") == [Dep("key", b"b", small()), Dep(0, b"a", error)]
    directory.forget(b"t")
    assert directory.resolved(b"t") == []
    assert not any(directory.census().values())


def test_the_same_ref_twice_is_resolved_once_for_each_slot(directory):
    waiting = task("t", Dep(0, b"a"), Dep(1, b"a"))
    directory.wait_for(waiting, waiting.payload.deps)
    assert directory.unresolved(waiting) == [b"a", b"a"]
    assert directory.exists(b"a", small(), "driver")[0] == [waiting]
    assert directory.resolved(b"t") == [Dep(0, b"a", small()), Dep(1, b"a", small())]


def test_many_wait_for_one(directory):
    waiting = [task(name, Dep(0, b"a")) for name in ("t1", "t2")]
    for each in waiting:
        directory.wait_for(each, each.payload.deps)
    directory.ask("w1", b"a")
    directory.ask("w2", b"a")
    assert directory.concerns(b"a", small()) and not directory.concerns(b"other", small())
    ready, askers, _ = directory.exists(b"a", small(), "driver")
    assert ready == waiting and askers == ["w1", "w2"]
    assert directory.exists(b"a", small(), "driver")[:2] == ([], [])


def test_values_known_at_once_are_kept_for_the_task(directory):
    waiting = task("t", Dep(0, b"a"), Dep(1, b"b"))
    directory.resolve_now(waiting, waiting.payload.deps[0], small())
    directory.wait_for(waiting, waiting.payload.deps[1:])
    assert directory.exists(b"b", large(), "driver")[0] == [waiting]
    assert directory.resolved(b"t") == [Dep(0, b"a", small()), Dep(1, b"b", large())]


def test_a_task_that_was_given_up_is_not_ready_later(directory):
    """An actor, say, that was killed while its creation waited for an argument."""
    waiting = task("t", Dep(0, b"a"), Dep(1, b"b"))
    directory.resolve_now(waiting, waiting.payload.deps[0], small())
    directory.wait_for(waiting, waiting.payload.deps[1:])
    directory.forget(b"t")
    assert directory.exists(b"b", small(), "driver")[0] == []
    assert not any(directory.census().values())


def test_only_what_needs_it_is_tracked(directory):
    directory.exists(b"small", small(), "driver")
    directory.exists(b"broken", Failed(b"error"), "driver")
    assert directory.known(b"small") is None and directory.known(b"broken") is None
    assert not any(directory.census().values())
    directory.exists(b"large", large(), "driver")
    directory.exists(b"container", small(b"large"), "driver")
    assert directory.known(b"large") == large() and directory.known(b"container") == small(b"large")


# ---------------------------------------------------------------- owners


def test_a_released_object_gives_its_block_back_once(directory):
    directory.exists(b"a", large("w1-3", 64), "driver")
    assert directory.segments["w1-3"] == 1
    freed = directory.release(b"a")
    assert freed.blocks == [large("w1-3", 64)] and freed.objects == [b"a"]
    assert directory.segments["w1-3"] == 0
    assert directory.release(b"a").blocks == []
    assert directory.known(b"a") is None


def test_an_object_released_before_it_exists_is_freed_on_arrival(directory):
    assert directory.release(b"a").unseen == [b"a"]
    directory.unwanted(b"a")
    _, _, freed = directory.exists(b"a", large(), "driver")
    assert len(freed.blocks) == 1
    assert not any(directory.census().values())


def test_held_and_released_before_it_exists(directory):
    directory.hold(b"a", b"w1", 1)
    assert directory.release(b"a").unseen == []
    assert directory.exists(b"a", large(), "driver")[2].blocks == []
    assert len(directory.hold(b"a", b"w1", -1).blocks) == 1
    assert not any(directory.census().values())


def test_an_unwanted_small_object_leaves_nothing(directory):
    directory.unwanted(b"a")
    assert directory.concerns(b"a", small())
    assert directory.exists(b"a", small(), "driver")[2].objects == []
    assert not any(directory.census().values())


def test_a_handle_lives_until_its_owner_and_all_holders_are_gone(directory):
    directory.track(b"handle", "driver")
    directory.hold(b"handle", b"w1", 1)
    assert directory.release(b"handle").objects == []
    assert directory.hold(b"handle", b"w1", -1).objects == [b"handle"]


def test_borrowers_of_an_object_that_is_not_tracked_leave_nothing(directory):
    directory.hold(b"small", b"w1", 1)
    assert directory.hold(b"small", b"w1", -1).blocks == []
    directory.hold(b"small", b"w2", -1)
    directory.hold(b"small", b"w2", 1)
    assert not any(directory.census().values())


# ---------------------------------------------------------------- containers


def test_a_container_holds_what_is_inside_it(directory):
    directory.exists(b"inner", large(), "w1")
    directory.exists(b"outer", small(b"inner"), "driver")
    assert directory.release(b"inner").blocks == []
    freed = directory.release(b"outer")
    assert freed.objects == [b"outer", b"inner"] and len(freed.blocks) == 1


def test_what_two_containers_hold_goes_with_the_second(directory):
    directory.exists(b"inner", large(), "w1")
    directory.exists(b"one", small(b"inner"), "driver")
    directory.exists(b"two", large("w2-0", 0, (b"inner", b"inner")), "driver")
    directory.release(b"inner")
    assert directory.release(b"one").objects == [b"one"]
    assert directory.release(b"two").objects == [b"two", b"inner"]
    assert directory.segments.total() == 0


def test_a_container_that_is_registered_before_its_inner_object_exists(directory):
    directory.exists(b"outer", small(b"inner"), "driver")
    directory.exists(b"inner", large(), "w1")
    assert directory.release(b"inner").blocks == []
    assert len(directory.release(b"outer").blocks) == 1


def test_a_long_chain_of_containers_is_freed_whole(directory):
    links = [i.to_bytes(4, "big") for i in range(10_000)]
    directory.exists(links[0], large(), "driver")
    for inner, outer in pairwise(links):
        directory.exists(outer, small(inner), "driver")
    for link in links[:-1]:
        assert directory.release(link).objects == []
    freed = directory.release(links[-1])
    assert freed.objects == links[::-1]
    assert len(freed.blocks) == 1
    assert not any(directory.census().values())


# ---------------------------------------------------------------- deaths


def test_a_dead_process_holds_and_owns_nothing(directory):
    directory.exists(b"borrowed", large("w1-0", 0), "driver")
    directory.exists(b"own", large("w1-0", 64), "w2")
    directory.hold(b"borrowed", b"w2", 2)
    directory.release(b"borrowed")
    freed = directory.process_died("w2", {})
    assert sorted(freed.objects) == [b"borrowed", b"own"]
    assert directory.hold(b"borrowed", b"w2", 1).objects == []  # late
    assert not any(directory.census().values())


def test_what_a_dead_process_owned_lives_while_others_hold_it(directory):
    directory.exists(b"own", large(), "w2")
    directory.hold(b"own", b"driver", 1)
    assert directory.process_died("w2", {}).blocks == []
    assert len(directory.hold(b"own", b"driver", -1).blocks) == 1


def test_unfinished_tasks_of_a_dead_process_keep_their_arguments(directory):
    directory.exists(b"argument", large(), "w2")
    assert directory.process_died("w2", {b"t1": [b"argument"], b"t2": [b"argument", b"small"]}).blocks == []
    assert directory.task_ended(b"t1", [b"argument"]).blocks == []
    assert len(directory.task_ended(b"t2", [b"argument", b"small"]).blocks) == 1
    assert not any(directory.census().values())


def test_an_argument_that_comes_after_its_owners_death_goes_with_the_task(directory):
    directory.process_died("w2", {b"t": [b"argument"]})
    assert directory.exists(b"argument", large(), "w2")[2].blocks == []
    assert len(directory.task_ended(b"t", [b"argument"]).blocks) == 1
    assert not any(directory.census().values())


def test_a_result_whose_owner_is_dead_is_freed_on_arrival(directory):
    directory.process_died("w2", {})
    assert len(directory.exists(b"orphan", large(), "w2")[2].blocks) == 1
    assert not any(directory.census().values())


def test_a_parent_that_is_run_again_adopts_what_is_left(directory):
    directory.exists(b"kept", large("w1-0", 0), "w2")
    directory.exists(b"freed", large("w1-0", 64), "w2")
    directory.hold(b"kept", b"driver", 1)
    directory.process_died("w2", {})
    assert directory.adopt(b"kept", "w3") and not directory.adopt(b"freed", "w3")
    assert directory.hold(b"kept", b"driver", -1).blocks == []
    assert len(directory.release(b"kept").blocks) == 1


def test_a_result_still_to_come_gets_the_new_owner(directory):
    directory.process_died("w2", {})
    directory.unwanted(b"child")
    directory.wanted_again(b"child", "w3")
    assert directory.exists(b"child", large(), "w3")[2].blocks == []
    assert len(directory.release(b"child").blocks) == 1


def test_an_owner_that_lives_is_followed_by_another_one(directory):
    """Its task runs once more, elsewhere. Both count, in any order."""
    for first, second in (("w1", "w2"), ("w2", "w1")):
        directory.exists(b"a", large(), "w1")
        assert directory.adopt(b"a", "w2")
        assert directory.release(b"a", first).blocks == []
        assert len(directory.release(b"a", second).blocks) == 1
    assert not any(directory.census().values())


def test_an_earlier_owner_that_dies(directory):
    directory.exists(b"a", large(), "w1")
    directory.adopt(b"a", "w2")
    assert directory.process_died("w1", {}).blocks == []
    assert len(directory.release(b"a", "w2").blocks) == 1


def test_a_borrower_cannot_release(directory):
    directory.exists(b"a", large(), "w1")
    assert directory.release(b"a", "w2").blocks == []
    assert directory.known(b"a") is not None


# ---------------------------------------------------------------- loss


def test_what_is_lost_is_waited_for(directory):
    directory.exists(b"a", large(), "driver")
    directory.lose(b"a")
    assert directory.is_lost(b"a") and directory.known(b"a") is None
    waiting = task("t", Dep(0, b"a"))
    directory.wait_for(waiting, waiting.payload.deps)
    directory.ask("w1", b"a")
    assert directory.exists(b"a", large("w2-0"), "")[:2] == ([waiting], ["w1"])
    assert not directory.is_lost(b"a") and directory.known(b"a") == large("w2-0")
    directory.forget(b"t")
    assert [block.segment for block in directory.release(b"a", "driver").blocks] == ["w2-0"]
    assert not any(directory.census().values())


def test_what_is_lost_and_then_freed(directory):
    directory.exists(b"inner", large(), "driver")
    directory.exists(b"a", large(refs=(b"inner",)), "driver")
    directory.lose(b"a")
    directory.release(b"inner")
    freed = directory.release(b"a")
    assert (len(freed.blocks), freed.objects, freed.unseen) == (1, [b"a", b"inner"], [])
    assert not any(directory.census().values())


def test_what_is_made_again_may_hold_other_objects(directory):
    for inner in (b"old", b"both", b"new"):
        directory.exists(inner, large(), "driver")
    directory.exists(b"a", large(refs=(b"old", b"both")), "driver")
    directory.lose(b"a")
    for inner in (b"old", b"both", b"new"):
        directory.hold(inner, b"w1", 1)
        directory.release(inner)
    assert directory.exists(b"a", large(refs=(b"both", b"new")), "")[2].objects == []
    for inner, objects in ((b"old", [b"old"]), (b"both", []), (b"new", [])):
        assert directory.hold(inner, b"w1", -1).objects == objects
    assert directory.release(b"a").objects == [b"a", b"new", b"both"]
    assert not any(directory.census().values())


def test_what_was_freed_is_needed_once_more(directory):
    """By a task that is run again; it is freed when that has ended, and before if it is not made."""
    directory.need_again(b"argument", b"t")
    assert directory.is_lost(b"argument")
    directory.exists(b"argument", large(), "")
    assert len(directory.task_ended(b"t", [b"argument"]).blocks) == 1
    directory.need_again(b"argument", b"t")
    assert directory.task_ended(b"t", [b"argument"]).unseen == []
    assert not any(directory.census().values())


def test_what_was_freed_is_put_again_and_has_an_owner(directory):
    directory.need_again(b"put", b"t")
    directory.exists(b"put", large(), "w2")
    assert directory.task_ended(b"t", [b"put"]).blocks == []
    assert len(directory.release(b"put", "w2").blocks) == 1
    assert not any(directory.census().values())


def test_an_error_in_place_of_what_was_lost(directory):
    directory.exists(b"a", large(), "driver")
    directory.lose(b"a")
    directory.ask("w1", b"a")
    assert directory.exists(b"a", Failed(b"error"), "")[1] == ["w1"]
    assert not directory.is_lost(b"a")


def test_a_new_node_knows_what_is_lost(directory):
    directory.exists(b"a", large(refs=(b"inner",)), "driver")
    directory.lose(b"a")
    again = Directory()
    again.restore({b"a": directory.snapshot(b"a")}, Departed(), lambda oid: None)
    assert again.is_lost(b"a") and again.known(b"a") is None
    assert again.held_by(b"a") == {b"inner": 1}
    again.exists(b"a", large(), "")
    assert not again.is_lost(b"a")
