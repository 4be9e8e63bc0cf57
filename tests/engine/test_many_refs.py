"""Objects that hold thousands of refs: those that come out are on loan from their container until they are used."""

import gc

import pytest
from module_engine import no_leaks, nothing_kept, shared_engine  # noqa: F401
from waiting import wait_for

from rlflow import engine
from rlflow.engine import api
from rlflow.engine.exceptions import ObjectLostError
from rlflow.engine.runtime.storage import MANY

COUNT = MANY + 200


@engine.remote
def make(count=COUNT):
    return [engine.put(i) for i in range(count)]


@engine.remote
def plus(number, more):
    return number + more


@engine.remote
def total(refs):
    return sum(engine.get(refs))


@engine.remote
class Counter:
    def __init__(self):
        self.count = 0

    def add(self):
        self.count += 1
        return self.count


def entries() -> int:
    """Of this process, once it has counted what was dropped."""
    backend = api.current_backend()
    backend.endpoint.flush()
    return len(backend.objects.entries)


def test_refs_that_are_not_used_cost_no_entry():
    container = make.remote()
    refs = engine.get(container)
    assert len(refs) == COUNT and len(set(refs)) == COUNT
    assert entries() == 1
    del container
    assert engine.get(refs[7]) == 7, "a ref keeps its container"
    assert entries() == 2


def test_the_container_lives_as_long_as_one_of_them():
    refs = engine.get(make.remote())
    last = refs[-1]
    del refs
    gc.collect()
    assert entries() == 1
    assert engine.get(last) == COUNT - 1
    del last
    wait_for(lambda: entries() == 0, "all is dropped")


def test_they_are_arguments_waited_for_awaited_and_got():
    refs = engine.get(make.remote())
    assert engine.get(plus.remote(refs[1], 10)) == 11
    assert engine.get(total.remote(refs[:100])) == sum(range(100))
    ready, pending = engine.wait(refs[100:110], num_returns=10, timeout=40)
    assert len(ready) == 10 and not pending
    assert refs[200].future().result(timeout=40) == 200
    assert engine.get(refs) == list(range(COUNT))
    nested = engine.put(refs)
    del refs
    assert engine.get(engine.get(nested)[-1]) == COUNT - 1


def test_the_same_ref_by_two_ways():
    """One is counted and one on loan; either may go first."""
    container = make.remote()
    first, second = engine.get(container), engine.get(container)
    assert engine.get(first[3]) == 3
    assert engine.get(second[3]) == 3
    del first
    gc.collect()
    assert entries() == 2
    assert engine.get(second[3]) == 3 and first_of(second) == 0
    del second
    gc.collect()
    assert entries() == 1


def first_of(refs):
    return engine.get(refs[0])


def test_ones_own_refs_come_back():
    own = [engine.put(i) for i in range(COUNT)]
    back = engine.get(engine.put(own))
    del own
    gc.collect()
    assert engine.get(back) == list(range(COUNT))


def test_handles_of_actors_among_them():
    @engine.remote
    def make_with_actor():
        return [Counter.remote(), *(engine.put(i) for i in range(COUNT))]

    counter, *refs = engine.get(make_with_actor.remote())
    assert engine.get([counter.add.remote() for _ in range(3)]) == [1, 2, 3]
    assert engine.get(refs[-1]) == COUNT - 1


def test_they_are_kept_by_a_task_that_got_them():
    @engine.remote
    class Keeper:
        def keep(self, container):
            self.refs = engine.get(container[0])

        def sum(self):
            return sum(engine.get(self.refs))

    keeper = Keeper.remote()
    container = make.remote()
    engine.get(keeper.keep.remote([container]))
    del container
    gc.collect()
    assert engine.get(keeper.sum.remote()) == sum(range(COUNT))


def test_after_a_shutdown_they_are_unknown():
    refs = engine.get(make.remote())
    host = api.current_backend().objects
    other = type(host)("other", lambda message: None)
    with pytest.raises(KeyError):
        other.count(refs[0])
    host.count(refs[0])
    assert engine.get(refs[0]) == 0
    with pytest.raises(ObjectLostError, match="unknown here"):
        api.current_backend().entries_of([type(refs[0])(b"0123456789abcdef")])
