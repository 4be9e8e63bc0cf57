"""Which GPUs a lease gets, and which worker: fed by hand."""

from hypothesis import given
from hypothesis import strategies as st
from scheduling import Feed

from rlflow.engine.node.accelerators import Gpus, would_fit
from rlflow.engine.options import UNITS

HALF = UNITS // 2


def test_whole_devices_are_shared_with_nobody():
    gpus = Gpus(2 * UNITS)
    assert gpus.take(HALF) == {0: HALF}
    assert gpus.fits(UNITS) and not gpus.fits(2 * UNITS)
    assert gpus.take(UNITS) == {1: UNITS}
    assert gpus.fits(HALF) and not gpus.fits(HALF + 1)


def test_a_fraction_goes_to_the_fullest_device_with_room():
    gpus = Gpus(3 * UNITS)
    assert [gpus.take(amount) for amount in (6000, 5000, 3000, 1000)] == [
        {0: 6000}, {1: 5000}, {0: 3000}, {0: 1000},
    ]  # fmt: skip
    assert gpus.fits(UNITS)


def test_two_halves_left_are_no_whole():
    gpus = Gpus(2 * UNITS)
    shares = [gpus.take(6000), gpus.take(6000)]
    assert not gpus.fits(8000)
    gpus.give_back(shares[0])
    assert gpus.fits(8000)


def test_what_fits_when_only_actors_stay():
    assert would_fit(UNITS, 2 * UNITS, [{0: HALF}])
    assert not would_fit(UNITS, 2 * UNITS, [{0: HALF}, {1: 1}])


@given(st.lists(st.one_of(st.integers(1, UNITS), st.sampled_from([2 * UNITS, 3 * UNITS])), max_size=30))
def test_no_device_is_given_out_twice(amounts):
    gpus = Gpus(4 * UNITS)
    shares = []
    for amount in amounts:
        if gpus.fits(amount):
            shares.append(gpus.take(amount))
            assert sum(shares[-1].values()) == amount
        elif shares:
            gpus.give_back(shares.pop(0))
        assert all(0 <= left <= UNITS for left in gpus.free)
    for share in shares:
        gpus.give_back(share)
    assert gpus.free == [UNITS] * 4


def test_gpus_go_to_a_worker_that_has_run_nothing_and_leaves_afterwards():
    feed = Feed(prestart=2, CPU=2, GPU=UNITS)
    feed.workers("w1", "w2")
    feed.submit("plain")
    assert feed.plan() == {"w2": ["plain"]}
    feed.finish("w2", "plain")
    feed.submit("a", "b", GPU=UNITS)
    assert feed.plan() == {"w1": ["a"]}
    assert feed.last.gpus == {"w1": [0]}
    feed.finish("w1", "a")
    assert feed.plan() == {}
    assert feed.last.stop_workers == ["w1"] and feed.last.start_workers == 1
    feed.workers("w3")
    assert feed.plan() == {"w3": ["b"]}


def test_a_worker_that_had_gpus_and_is_dead_is_not_told_to_stop():
    feed = Feed(prestart=1, CPU=1, GPU=UNITS)
    feed.workers("w1")
    feed.submit("a", GPU=UNITS)
    feed.plan()
    feed.finish("w1", "a")
    assert feed.die("w1") == ([], [])
    feed.plan()
    assert feed.last.stop_workers == []


def test_nobody_takes_the_cpu_of_a_task_whose_worker_is_starting():
    feed = Feed(prestart=1, CPU=1, GPU=UNITS)
    feed.workers("w1")
    feed.submit("plain")
    feed.plan()
    feed.submit("gpu", CPU=1, GPU=UNITS)
    feed.finish("w1", "plain")
    feed.submit("young")
    assert feed.plan() == {}
    feed.workers("w2")
    assert feed.plan() == {"w2": ["gpu"]}


def test_scattered_parts_are_reserved_for_a_whole():
    feed = Feed(prestart=4, CPU=4, GPU=2 * UNITS)
    feed.workers("w1", "w2", "w3", "w4")
    feed.submit("part0", "part1", GPU=6000)
    feed.plan()
    feed.submit("whole", GPU=UNITS)
    feed.submit("part2", GPU=1000)
    assert feed.plan() == {}
    feed.finish("w4", "part0")
    assert list(feed.plan().values()) == [["whole"], ["part2"]]


def test_a_whole_that_actors_have_cut_up_holds_nobody_back():
    feed = Feed(prestart=4, CPU=4, GPU=2 * UNITS)
    feed.workers("w1", "w2", "w3")
    feed.submit("actor0", "actor1", exclusive=True, GPU=6000)
    for worker in feed.plan():
        assert feed.scheduler.became_actor(worker)
    feed.submit("whole", GPU=UNITS)
    feed.submit("part", GPU=1000)
    assert list(feed.plan().values()) == [["part"]]


def test_no_task_with_gpus_runs_on_top_of_another():
    feed = Feed(prestart=2, CPU=2, GPU=2 * UNITS)
    feed.workers("w1")
    feed.submit("parent", CPU=1)
    feed.plan()
    feed.submit("child", CPU=1, GPU=UNITS)
    feed.block("w1", "child")
    assert feed.plan() == {}
    feed.workers("w2")
    assert feed.plan() == {"w2": ["child"]}
