"""Resources: what exists, what is held, what can never be had."""

import logging
import time
import warnings

import psutil
import pytest

from rlflow import engine
from rlflow.engine.exceptions import GetTimeoutError


@engine.remote
def identity(value):
    return value


@engine.remote
class Holder:
    def ready(self):
        return "ready"


def counted(resources):
    """All but memory, which every machine has another amount of."""
    return {name: amount for name, amount in resources.items() if name != "memory"}


def settles(expected):
    """What is free once the engine has heard of what ended."""
    deadline = time.monotonic() + 30
    while (found := counted(engine.available_resources())) != expected and time.monotonic() < deadline:
        time.sleep(0.005)
    return found


def test_what_exists(backend):
    engine.init(backend=backend, num_cpus=3, num_gpus=1, resources={"camera": 2, "disk": 0.5})
    everything = {"CPU": 3.0, "GPU": 1.0, "camera": 2.0, "disk": 0.5}
    assert counted(engine.cluster_resources()) == everything
    assert settles(everything) == everything
    [node] = engine.nodes()
    assert node["Alive"] is True and counted(node["Resources"]) == everything


def test_cpus_of_the_machine_are_the_default(backend):
    import os

    engine.init(backend=backend)
    assert counted(engine.cluster_resources()) == {"CPU": float(len(os.sched_getaffinity(0)))}


def test_a_task_holds_what_it_asks_for(backend):
    engine.init(backend=backend, num_cpus=4, resources={"camera": 1})

    @engine.remote(num_cpus=1.5, resources={"camera": 0.25})
    def look():
        return engine.available_resources()

    assert counted(engine.get(look.remote())) == {"CPU": 2.5, "camera": 0.75}
    assert settles({"CPU": 4.0, "camera": 1.0}) == {"CPU": 4.0, "camera": 1.0}


def test_an_actor_holds_no_cpu_unless_asked(backend):
    engine.init(backend=backend, num_cpus=2, resources={"camera": 1})
    idle = Holder.remote()
    engine.get(idle.ready.remote())
    assert settles({"CPU": 2.0, "camera": 1.0}) == {"CPU": 2.0, "camera": 1.0}
    holder = Holder.options(num_cpus=0.5, resources={"camera": 1}).remote()
    engine.get(holder.ready.remote())
    assert settles({"CPU": 1.5, "camera": 0.0}) == {"CPU": 1.5, "camera": 0.0}
    del holder
    assert settles({"CPU": 2.0, "camera": 1.0}) == {"CPU": 2.0, "camera": 1.0}


def test_memory_is_counted_in_bytes(backend):
    engine.init(backend=backend, num_cpus=2, memory=3 * 10**9)
    assert engine.cluster_resources()["memory"] == 3e9

    @engine.remote(memory=10**9)
    def left():
        return engine.available_resources()["memory"], engine.get_runtime_context().get_assigned_resources()

    assert engine.get(left.remote()) == (2e9, {"CPU": 1.0, "memory": 1e9})
    holder = Holder.options(memory=2 * 10**9).remote()
    assert engine.get(holder.ready.remote()) == "ready"
    assert engine.available_resources()["memory"] == 1e9


def test_the_machines_memory_is_the_default(backend):
    engine.init(backend=backend, num_cpus=1)
    assert 0 < engine.cluster_resources()["memory"] <= psutil.virtual_memory().total


def test_more_actors_than_cpus(backend):
    engine.init(backend=backend, num_cpus=1)
    holders = [Holder.remote() for _ in range(4)]
    assert engine.get([h.ready.remote() for h in holders]) == ["ready"] * 4


def test_tasks_that_need_no_cpu_or_all_of_them(backend):
    engine.init(backend=backend, num_cpus=2)
    refs = [identity.options(num_cpus=n).remote(n) for n in (0, 2, 1, 2, 0.1, 0, 2)]
    assert engine.get(refs) == [0, 2, 1, 2, 0.1, 0, 2]


def test_custom_resources_let_everyone_through_in_turn(backend):
    engine.init(backend=backend, num_cpus=2, resources={"camera": 1})
    refs = [identity.options(resources={"camera": 1}).remote(i) for i in range(20)]
    assert engine.get(refs) == list(range(20))


def said(caplog, capfd, recorded):
    """All a person at the terminal would have seen, however it got there."""
    shown = [str(w.message) for w in recorded]
    out, err = capfd.readouterr()
    return " ".join([caplog.text, out, err, *shown])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"resources": {"camera": 1}}, ["camera", "CPU"]),
        ({"num_cpus": 8}, ["8", "CPU", "2"]),
        ({"num_gpus": 1}, ["GPU"]),
    ],
    ids=["custom", "cpus", "gpus"],
)
def test_a_task_that_can_never_run(backend, options, words, caplog, capfd):
    engine.init(backend=backend, num_cpus=2)
    caplog.set_level(logging.WARNING)
    with warnings.catch_warnings(record=True) as recorded:
        warnings.simplefilter("always")
        ref = identity.options(**options).remote(1)
        with pytest.raises(GetTimeoutError):
            engine.get(ref, timeout=0.2)
    seen = said(caplog, capfd, recorded)
    assert "identity" in seen
    for word in words:
        assert word in seen
    assert engine.wait([ref, engine.put(1)], timeout=0)[1] == [ref]
    with pytest.raises(GetTimeoutError):
        engine.get(identity.remote(ref), timeout=0)  # what depends on it waits as well
    assert engine.get(identity.remote("others go on")) == "others go on"


def test_an_actor_that_can_never_start(backend, caplog, capfd):
    engine.init(backend=backend, num_cpus=2)
    caplog.set_level(logging.WARNING)
    with warnings.catch_warnings(record=True) as recorded:
        warnings.simplefilter("always")
        holder = Holder.options(resources={"camera": 1}).remote()
        with pytest.raises(GetTimeoutError):
            engine.get(holder.ready.remote(), timeout=0.2)
    seen = said(caplog, capfd, recorded)
    assert "Holder" in seen and "camera" in seen
    assert engine.get(Holder.remote().ready.remote()) == "ready"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_cpus": -1}, ValueError, "num_cpus must be at least 0, got -1"),
        ({"num_cpus": "2"}, TypeError, "num_cpus must be a number, got '2'"),
        ({"num_gpus": True}, TypeError, "num_gpus must be a number"),
        ({"resources": {"camera": -1}}, ValueError, "camera must be at least 0"),
        ({"resources": {"CPU": 2}}, ValueError, "ask for CPUs with num_cpus"),
        ({"resources": ["camera"]}, TypeError, "resources must be a dict"),
    ],
    ids=str,
)
def test_resources_of_init_are_checked(backend, arguments, error, message):
    with pytest.raises(error, match=message):
        engine.init(backend=backend, **arguments)
    assert not engine.is_initialized()
