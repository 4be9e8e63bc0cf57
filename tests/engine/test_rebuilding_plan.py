"""Which tasks are run again for a lost object, and why it cannot be made again: decisions only."""

import pytest

from rlflow.engine import messages as m
from rlflow.engine.ids import object_id
from rlflow.engine.node.rebuilding import plan

SMALL = m.Inline(b"small")
LARGE = m.Shm("w1-0", 0, [10])


def task(name):
    return name.encode().ljust(14, b".")


def result(name):
    return object_id(task(name), 0)


class World:
    """Tasks by name, and what is there."""

    def __init__(self, **tasks):
        self.specs = {}
        self.ran = {}
        self.there = {}
        self.running = set()
        self.again = set()
        self.puts = {}
        for name, needs in tasks.items():
            self.task(name, needs)

    def task(self, name, needs=(), kind=m.TASK, max_retries=3, ran=1):
        deps = [m.Dep(slot, result(need)) for slot, need in enumerate(needs)]
        method = "method" if kind == m.CALL else ""
        recipe = m.Recipe(kind, b"f", "driver", 1, {}, max_retries, name, method)
        self.specs[task(name)] = m.Spec(task(name), None, deps, [], "", 0, 0.0, m.encode(recipe))
        self.ran[task(name)] = ran

    def value(self, oid):
        return self.there.get(oid)

    def spec(self, wanted):
        return self.specs.get(wanted)

    def attempts(self, wanted):
        return self.ran[wanted]

    def is_running(self, wanted):
        return wanted in self.running

    def is_run_again(self, wanted):
        return wanted in self.again

    def put_by(self, put):
        return self.puts.get(put)

    def history(self):
        return "the store was full"

    def runs(self, name):
        found = plan(result(name), self)
        assert not found.refusal
        return {run.spec.recipe.name: run.attempt for run in found.runs}


def test_its_task_is_run_as_the_next_attempt():
    world = World(one=())
    assert world.runs("one") == {"one": 1}
    world.ran[task("one")] = 3
    assert world.runs("one") == {"one": 3}


def test_so_are_those_of_arguments_that_are_gone_each_once():
    world = World(top=("left", "right"), left=("bottom",), right=("bottom",), bottom=())
    assert world.runs("top") == {"top": 1, "left": 1, "right": 1, "bottom": 1}
    world.there[result("left")] = LARGE
    world.there[result("right")] = SMALL
    assert world.runs("top") == {"top": 1}


def test_what_the_spec_has_is_not_looked_for():
    world = World(top=("argument",))
    world.specs[task("top")].deps[0].value = SMALL
    assert world.runs("top") == {"top": 1}


def test_what_runs_is_waited_for():
    world = World(top=("below",), below=())
    world.running = world.again = {task("below")}
    assert world.runs("top") == {"top": 1}
    assert world.runs("below") == {}


def test_a_chain_longer_than_the_stack():
    world = World()
    for link in range(5000):
        world.task(f"{link}", [f"{link - 1}"] if link else [])
    assert len(world.runs("4999")) == 5000


def test_a_put_is_put_again_by_its_task():
    world = World(parent=())
    world.puts[task("put")] = ("w1", task("parent"))
    found = plan(result("put"), world)
    assert [run.spec.recipe.name for run in found.runs] == ["parent"]
    assert found.puts == [(task("parent"), result("put"))]
    world.running = world.again = {task("parent")}
    found = plan(result("put"), world)
    assert not found.runs and found.puts == [(task("parent"), result("put"))]
    world.again = set()
    assert "has not ended" in plan(result("put"), world).refusal


RETRIES = [(3, 3, False), (3, 4, True), (0, 1, True), (-1, 99, False)]


@pytest.mark.parametrize(("max_retries", "ran", "refused"), RETRIES)
def test_attempts_are_counted(max_retries, ran, refused):
    world = World()
    world.task("one", max_retries=max_retries, ran=ran)
    refusal = plan(result("one"), world).refusal
    assert bool(refusal) == refused
    if refused:
        assert f"max_retries={max_retries}" in refusal and "one" in refusal


def test_what_cannot_be_made_again():
    world = World(needs_put=("put",), needs_gone=("gone",), deep=("needs_put",))
    world.puts[task("put")] = ("driver", b"")
    world.task("call", kind=m.CALL)
    world.task("init", kind=m.ACTOR)
    assert "put by the driver" in plan(result("put"), world).refusal
    assert "call.method" in plan(result("call"), world).refusal
    assert "init.__init__" in plan(result("init"), world).refusal
    assert "the store was full" in plan(result("gone"), world).refusal
    for name, lacks in (("needs_put", "put"), ("needs_gone", "gone"), ("deep", "put")):
        refusal = plan(result(name), world).refusal
        assert refusal.startswith(f"task {name}, which makes it, needs ObjectRef({result(lacks).hex()})")
