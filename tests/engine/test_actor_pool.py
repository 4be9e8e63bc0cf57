"""``rlflow.engine.util.ActorPool``: who gets which piece, and in which order results are taken."""

import pytest
from counters import Counter
from waiting import DEADLINE

from rlflow import engine
from rlflow.engine.exceptions import ActorDiedError
from rlflow.engine.util import ActorPool


@engine.remote
class Worker:
    def __init__(self):
        self.done = 0

    def double(self, value):
        self.done += 1
        return 2 * value

    def fail(self, value):
        raise ValueError(value)

    @engine.method(num_returns=2)
    def both(self, value):
        return value, -value

    def count(self):
        return self.done


def double(actor, value):
    return actor.double.remote(value)


def pool_of_two():
    return ActorPool([Worker.remote(), Worker.remote()])  # no fixture: pytest would hold it past the check for leaks


def test_map_keeps_the_order_of_the_values(cluster):
    pool = pool_of_two()
    assert list(pool.map(double, range(20))) == [2 * i for i in range(20)]
    assert list(pool.map(double, [])) == []


def test_map_unordered_gives_every_result_once(cluster):
    pool = pool_of_two()
    assert sorted(pool.map_unordered(double, range(20))) == [2 * i for i in range(20)]


def test_every_actor_of_the_pool_works(cluster):
    workers = [Worker.remote() for _ in range(2)]
    list(ActorPool(workers).map(double, range(10)))
    counts = engine.get([worker.count.remote() for worker in workers])
    assert sum(counts) == 10 and all(counts)


def test_submit_and_get_next(cluster):
    pool = pool_of_two()
    assert not pool.has_next() and pool.has_free()
    for i in range(5):
        pool.submit(double, i)
    assert not pool.has_free()
    assert [pool.get_next() for _ in range(5)] == [0, 2, 4, 6, 8]
    assert not pool.has_next() and pool.has_free()
    with pytest.raises(StopIteration):
        pool.get_next()
    with pytest.raises(StopIteration):
        pool.get_next_unordered()


def test_no_order_is_left_behind_the_last_piece(cluster):
    pool = pool_of_two()
    pool.submit(double, 1)
    pool.submit(double, 2)
    taken = pool.get_next_unordered()
    if taken == 2:
        assert pool.get_next() == 4
    else:
        with pytest.raises(ValueError, match="get_next_unordered"):
            pool.get_next()
        assert pool.get_next_unordered() == 2


def test_an_error_is_raised_for_its_own_piece_only(cluster):
    pool = pool_of_two()
    pool.submit(double, 1)
    pool.submit(lambda actor, value: actor.fail.remote(value), "wrong")
    pool.submit(double, 3)
    assert pool.get_next() == 2
    with pytest.raises(ValueError, match="wrong"):
        pool.get_next()
    assert pool.get_next() == 6
    assert pool.has_free()


def test_calls_with_several_results(cluster):
    pool = pool_of_two()
    assert list(pool.map(lambda actor, value: actor.both.remote(value), [1, 2, 3])) == [[1, -1], [2, -2], [3, -3]]


def test_actors_come_and_go(cluster):
    pool = pool_of_two()
    first = pool.pop_idle()
    second = pool.pop_idle()
    assert pool.pop_idle() is None and not pool.has_free()
    pool.submit(double, 4)
    assert pool.has_next()
    with pytest.raises(ActorDiedError, match="push"):
        pool.get_next()
    pool.push(first)
    with pytest.raises(ValueError, match="already"):
        pool.push(first)
    assert pool.get_next() == 8
    pool.push(second)
    with pytest.raises(ValueError, match="already"):
        pool.push(first)


def test_map_drops_what_was_submitted_before(cluster):
    pool = pool_of_two()
    for i in range(5):
        pool.submit(double, i)
    assert list(pool.map(double, [10, 11])) == [20, 22]


def test_a_dead_actor_leaves_the_pool(cluster):
    dead, alive = Worker.remote(), Worker.remote()
    pool = ActorPool([alive, dead])
    engine.kill(dead)
    results = pool.map(double, range(6))
    with pytest.raises(ActorDiedError):
        next(results)  # the pool begins with the last actor
    assert [pool.get_next() for _ in range(5)] == [2, 4, 6, 8, 10]
    assert pool.pop_idle() == alive
    assert pool.pop_idle() is None


def test_a_pool_of_the_dead_says_so(cluster):
    dead = Worker.remote()
    engine.kill(dead)
    results = ActorPool([dead]).map(double, range(3))
    with pytest.raises(ActorDiedError):
        next(results)
    with pytest.raises(ActorDiedError):
        list(ActorPool([]).map(double, range(3)))


@pytest.mark.parametrize("backend", ["local"], indirect=True)  # inline, everything is ready when it was submitted
class TestTimeouts:
    def test_time_out_and_ask_again(self, cluster, tmp_path):
        pool = ActorPool([Blocked.remote(str(tmp_path / "go"))])
        pool.submit(lambda actor, value: actor.wait.remote(value), 1)
        with pytest.raises(TimeoutError):
            pool.get_next(timeout=0.01)
        with pytest.raises(TimeoutError):
            pool.get_next_unordered(timeout=0.01)
        (tmp_path / "go").touch()
        assert pool.get_next(timeout=DEADLINE) == 1

    def test_a_piece_that_is_ignored_leaves_its_place_to_the_next(self, cluster, tmp_path):
        pool = ActorPool([Blocked.remote(str(tmp_path / "go"))])
        for i in range(3):
            pool.submit(lambda actor, value: actor.wait.remote(value), i)
        with pytest.raises(TimeoutError, match="dropped"):
            pool.get_next(timeout=0.01, ignore_if_timedout=True)
        with pytest.raises(TimeoutError, match="dropped"):
            pool.get_next_unordered(timeout=0.01, ignore_if_timedout=True)
        (tmp_path / "go").touch()
        assert pool.get_next(timeout=DEADLINE) == 2
        assert not pool.has_next()


@engine.remote
class Blocked:
    """Gives no result until a file is there."""

    def __init__(self, path):
        self.path = path

    def wait(self, value):
        import os
        import time

        while not os.path.exists(self.path):
            time.sleep(0.002)
        return value


def test_refs_and_counters_work_as_values(cluster):
    pool = ActorPool([Counter.remote() for _ in range(2)])
    results = pool.map(lambda actor, value: actor.echo.remote(value), [engine.put(i) for i in range(4)])
    assert [args for args, _ in results] == [(0,), (1,), (2,), (3,)]
