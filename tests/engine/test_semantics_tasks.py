"""Tasks: arguments, results, refs in both, tasks within tasks."""

import time

import pytest

from rlflow import engine
from rlflow.engine import ids

pytestmark = pytest.mark.usefixtures("cluster")


@engine.remote
def identity(value):
    return value


@engine.remote
def describe(*args, **kwargs):
    """Type names of what arrives."""
    return [type(a).__name__ for a in args], {k: type(v).__name__ for k, v in kwargs.items()}


@engine.remote
def fib(n):
    if n < 2:
        return n
    return sum(engine.get([fib.remote(n - 1), fib.remote(n - 2)]))


@engine.remote
def chain(depth):
    return 0 if depth == 0 else 1 + engine.get(chain.remote(depth - 1))


# --- arguments ---


def test_positional_and_keyword_arguments_and_defaults():
    @engine.remote
    def call(a, b=2, *rest, c, d=4, **more):
        return a, b, rest, c, d, more

    assert engine.get(call.remote(1, c=3)) == (1, 2, (), 3, 4, {})
    assert engine.get(call.remote(1, 5, 6, 7, c=8, e=9)) == (1, 5, (6, 7), 8, 4, {"e": 9})


def test_wrong_arguments_are_a_type_error():
    @engine.remote
    def one(a):
        return a

    with pytest.raises(TypeError, match="argument"):
        engine.get(one.remote())
    with pytest.raises(TypeError, match="argument"):
        engine.get(one.remote(1, 2))


def test_refs_at_top_level_are_replaced_by_their_values():
    ref = engine.put(1)
    assert engine.get(describe.remote(ref, 2, key=ref)) == (["int", "int"], {"key": "int"})
    assert engine.get(identity.remote(ref)) == 1


def test_refs_inside_data_stay_refs():
    ref = engine.put("value")

    @engine.remote
    def look(items, table, deep):
        refs = [items[0], table["key"], deep[0]["x"][1]]
        assert all(isinstance(r, engine.ObjectRef) for r in refs)
        return engine.get(refs)

    assert engine.get(look.remote([ref], {"key": ref}, ({"x": [0, ref]},))) == ["value"] * 3


def test_refs_of_unfinished_tasks_as_arguments():
    ref = identity.remote(0)
    for _ in range(20):
        ref = plus_one.remote(ref)
    assert engine.get(ref) == 20


@engine.remote
def plus_one(n):
    return n + 1


def test_one_ref_several_times_in_one_call():
    ref = engine.put([1])

    @engine.remote
    def same(a, b, c):
        return a, b, c

    assert engine.get(same.remote(ref, ref, c=ref)) == ([1], [1], [1])


# --- results ---


def test_several_returns():
    @engine.remote(num_returns=3)
    def three():
        return 1, "two", [3]

    refs = three.remote()
    assert len(refs) == 3
    assert engine.get(refs) == [1, "two", [3]]
    assert engine.get(refs[1]) == "two"


def test_several_returns_from_a_list_and_a_generator():
    @engine.remote(num_returns=2)
    def listed():
        return [1, 2]

    @engine.remote(num_returns=2)
    def generated():
        return (i for i in (1, 2))

    assert engine.get(listed.remote()) == [1, 2]
    assert engine.get(generated.remote()) == [1, 2]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ((1, 2, 3), "returned 3 values where num_returns=2"),
        ([], "returned 0 values where num_returns=2"),
        (7, "returned one int where num_returns=2"),
        (None, "returned one NoneType where num_returns=2"),
        ("ab", "returned one str where num_returns=2"),
    ],
)
def test_a_wrong_number_of_returns(result, message):
    refs = identity.options(num_returns=2).remote(result)
    assert len(refs) == 2
    for ref in refs:
        with pytest.raises(ValueError, match=message):
            engine.get(ref)


def test_no_returns():
    @engine.remote(num_returns=0)
    def nothing():
        return "ignored"

    assert nothing.remote() is None


def test_one_return_is_the_whole_tuple():
    assert engine.get(identity.options(num_returns=1).remote((1, 2))) == (1, 2)


def test_many_returns():
    refs = identity.options(num_returns=300).remote(tuple(range(300)))
    assert engine.get(refs) == list(range(300))


def test_none_and_no_return_statement():
    @engine.remote
    def silent():
        pass

    assert engine.get(silent.remote()) is None
    assert engine.get(identity.remote(None)) is None


def test_a_ref_as_a_result_stays_a_ref():
    @engine.remote
    def submit():
        return identity.remote("inner")

    @engine.remote
    def put_some():
        return [engine.put(i) for i in range(3)]

    inner = engine.get(submit.remote())
    assert isinstance(inner, engine.ObjectRef)
    assert engine.get(inner) == "inner"
    assert engine.get(engine.get(put_some.remote())) == [0, 1, 2]


def test_a_ref_to_a_ref_as_an_argument_loses_one_layer():
    outer = engine.put([engine.put("x")])
    [inner] = engine.get(identity.remote(outer))
    assert engine.get(inner) == "x"


def test_a_ref_that_was_an_argument_can_be_returned():
    @engine.remote
    def hand_back(box):
        return box[0]

    ref = engine.put("mine")
    back = engine.get(hand_back.remote([ref]))
    assert back == ref and engine.get(back) == "mine"


# --- tasks within tasks ---


def test_a_tree_of_tasks_wider_and_deeper_than_the_cpus():
    assert engine.get(fib.remote(9)) == 34


def test_a_chain_of_waiting_tasks_deeper_than_the_cpus():
    assert engine.get(chain.remote(20)) == 20


def test_a_task_waits_for_its_children():
    @engine.remote
    def parent():
        refs = [identity.remote(i) for i in range(5)]
        ready, pending = engine.wait(refs, num_returns=5)
        return len(ready), len(pending), engine.get(refs)

    assert engine.get(parent.remote()) == (5, 0, [0, 1, 2, 3, 4])


def test_a_child_outlives_its_parent():
    @engine.remote
    def parent():
        return [identity.remote(engine.put(i)) for i in range(3)]

    assert engine.get(engine.get(parent.remote())) == [0, 1, 2]


def test_ids_of_children_derive_from_their_parent():
    @engine.remote
    def own_id():
        return engine.get_runtime_context().task_id

    @engine.remote
    def parent():
        mine = engine.get_runtime_context().task_id
        first, put, second = own_id.remote(), engine.put(0), own_id.remote()
        return mine, engine.get([first, second]), [first.binary(), put.binary(), second.binary()]

    mine, children, objects = engine.get(parent.remote())
    scope = ids.child_scope(bytes.fromhex(mine))
    assert [child.startswith(scope.hex()) for child in children] == [True, True]
    first = int.from_bytes(ids.task_of(objects[0])[ids.SCOPE_BYTES :], "big")
    expected = [ids.object_id(ids.task_id(scope, first + i), 0) for i in range(3)]
    assert objects == expected
    assert [bytes.fromhex(child) for child in children] == [ids.task_of(objects[0]), ids.task_of(objects[2])]


def test_context_of_driver_and_task(cluster):
    @engine.remote
    def where():
        return engine.get_runtime_context()

    here, there = engine.get_runtime_context(), engine.get(where.remote())
    assert (here.backend, here.role, here.task_id, here.actor_id) == (cluster, "driver", None, None)
    assert (there.backend, there.role, there.actor_id, there.attempt) == (cluster, "worker", None, 0)
    assert there.task_id is not None and len(bytes.fromhex(there.task_id)) == ids.TASK_BYTES
    assert there.namespace == here.namespace == "default"
    assert there.node_id == here.node_id == engine.nodes()[0]["NodeID"]
    assert there.get_task_id() == there.task_id


def test_many_small_tasks():
    refs = [plus_one.remote(i) for i in range(2000)]
    assert engine.get(refs) == list(range(1, 2001))


def test_tasks_started_from_several_threads():
    from concurrent.futures import ThreadPoolExecutor

    def program(n):
        return engine.get([identity.remote(n * 100 + i) for i in range(50)])

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(program, range(4)))
    assert results == [[n * 100 + i for i in range(50)] for n in range(4)]


def test_a_task_uses_its_own_threads():
    @engine.remote
    def parent():
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(3) as pool:
            return list(pool.map(lambda i: engine.get(plus_one.remote(i)), range(6)))

    assert engine.get(parent.remote()) == [1, 2, 3, 4, 5, 6]


def test_tasks_run_at_the_same_time(backend):
    """Two tasks that wait for each other's mark: neither could finish alone."""
    if backend == "inline":
        return  # one at a time, by design

    @engine.remote
    class Board:
        def __init__(self):
            self.marks = set()

        def mark(self, name):
            self.marks.add(name)

        def seen(self):
            return len(self.marks)

    @engine.remote
    def meet(board, name):
        engine.get(board.mark.remote(name))
        while engine.get(board.seen.remote()) < 2:
            time.sleep(0.001)
        return name

    board = Board.remote()
    assert engine.get([meet.remote(board, "a"), meet.remote(board, "b")], timeout=60) == ["a", "b"]
