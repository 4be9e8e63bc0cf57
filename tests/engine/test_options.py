"""Options: every wrong one is refused where it is given, in words that help."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlflow import engine
from rlflow.engine.exceptions import UnsupportedError
from rlflow.engine.options import (
    NOT_YET,
    UNITS,
    ActorOptions,
    NearObject,
    TaskOptions,
    demand,
    machine_resources,
    merge_actor_options,
    merge_task_options,
)


def function():
    return 1


class Actor:
    def method(self):
        return 1


WRONG_FOR_BOTH = [
    ({"num_cpu": 1}, TypeError, "option 'num_cpu'; did you mean 'num_cpus'"),
    ({"colour": "red"}, TypeError, "option 'colour'; known: num_cpus"),
    ({"num_cpus": "1"}, TypeError, "num_cpus must be a number, got '1'"),
    ({"num_cpus": None}, TypeError, "num_cpus must be a number, got None"),
    ({"num_cpus": True}, TypeError, "num_cpus must be a number, got True"),
    ({"num_cpus": -0.5}, ValueError, "num_cpus must be at least 0, got -0.5"),
    ({"num_gpus": float("inf")}, ValueError, "num_gpus must be at least 0"),
    ({"num_gpus": float("nan")}, ValueError, "num_gpus must be at least 0"),
    ({"resources": "camera"}, TypeError, "resources must be a dict"),
    ({"resources": {"camera": "1"}}, TypeError, "camera must be a number"),
    ({"resources": {"CPU": 1}}, ValueError, "ask for CPUs with num_cpus"),
    ({"resources": {"GPU": 1}}, ValueError, "ask for GPUs with num_gpus"),
    ({"resources": {"memory": 1}}, ValueError, "ask for memory with memory"),
    ({"memory": 1.5}, TypeError, "memory must be an int, in bytes, got 1.5"),
    ({"memory": -1}, ValueError, "memory must be at least 0 bytes, got -1"),
    *[({name: 1}, UnsupportedError, f"option '{name}' is not supported yet") for name in sorted(NOT_YET)],
]
WRONG_FOR_TASKS = [
    ({"num_returns": 1.5}, TypeError, "num_returns must be an int, got 1.5"),
    ({"num_returns": True}, TypeError, "num_returns must be an int, got True"),
    ({"num_returns": -1}, ValueError, "num_returns must be between 0 and"),
    ({"num_returns": 10**6}, ValueError, "num_returns must be between 0 and"),
    ({"num_returns": "streaming"}, UnsupportedError, "num_returns='streaming' is not supported yet"),
    ({"num_returns": "dynamic"}, UnsupportedError, "is not supported yet"),
    ({"max_retries": -2}, ValueError, r"max_retries must be -1 \(for ever\), 0 or more, got -2"),
    ({"max_retries": "3"}, TypeError, "max_retries must be an int"),
    ({"scheduling_strategy": "SPREAD"}, UnsupportedError, "scheduling_strategy 'SPREAD' is not supported"),
    ({"max_restarts": 1}, TypeError, "unknown task option 'max_restarts'"),
]
WRONG_FOR_ACTORS = [
    ({"max_restarts": -2}, ValueError, "max_restarts must be -1"),
    ({"max_restarts": 1.0}, TypeError, "max_restarts must be an int"),
    ({"name": 5}, TypeError, "name must be a str, got 5"),
    ({"get_if_exists": True}, ValueError, "get_if_exists=True needs a name"),
    ({"max_task_retries": -2}, ValueError, "max_task_retries must be -1"),
    ({"checkpoint_every": 1.5, "max_restarts": 1}, TypeError, "checkpoint_every must be an int or None, got 1.5"),
    ({"checkpoint_every": -1, "max_restarts": 1}, ValueError, r"checkpoint_every must be 0 \(log only\) or more"),
    ({"checkpoint_every": 5}, ValueError, r"give max_restarts \(-1: for ever\) as well"),
    ({"checkpoint_every": 5, "max_restarts": 1, "max_concurrency": 2}, ValueError, "calls that run one at a time"),
    ({"replay": False}, ValueError, "give checkpoint_every=N as well"),
    ({"replay": None}, TypeError, "replay must be True or False, got None"),
    ({"replay": False, "checkpoint_every": 0, "max_restarts": 1}, ValueError, "keeps nothing"),
    ({"max_restart": 1}, TypeError, "unknown actor option 'max_restart'; did you mean 'max_restarts'"),
    ({"num_returns": 2}, TypeError, "unknown actor option 'num_returns'"),
]


@pytest.mark.parametrize(("options", "error", "message"), WRONG_FOR_BOTH + WRONG_FOR_TASKS, ids=str)
def test_wrong_task_options(options, error, message):
    with pytest.raises(error, match=message):
        engine.remote(**options)(function)
    with pytest.raises(error, match=message):
        engine.remote(function).options(**options)


@pytest.mark.parametrize(("options", "error", "message"), WRONG_FOR_BOTH + WRONG_FOR_ACTORS, ids=str)
def test_wrong_actor_options(options, error, message):
    with pytest.raises(error, match=message):
        engine.remote(**options)(Actor)
    with pytest.raises(error, match=message):
        engine.remote(Actor).options(**options)


def test_event_loops_cannot_be_replayed():
    class Waiter:
        async def wait(self):
            pass

    with pytest.raises(TypeError, match=r"Waiter\.wait is a coroutine: checkpoint_every needs calls that run one"):
        engine.remote(max_restarts=1, checkpoint_every=1)(Waiter)


@pytest.mark.parametrize("lacking", ["save_checkpoint", "load_checkpoint"])
def test_who_saves_must_load(lacking):
    methods = {"save_checkpoint": lambda self: 1, "load_checkpoint": lambda self, state: None}
    del methods[lacking]
    half = type("Half", (), methods)
    options = {"max_restarts": 1, "checkpoint_every": 1}
    with pytest.raises(TypeError, match=f"Half has no {lacking}"):
        engine.remote(**options)(half)
    with pytest.raises(TypeError, match=f"Half has no {lacking}"):
        engine.remote(half).options(**options)


def test_wrong_options_of_methods():
    with pytest.raises(TypeError, match="num_returns must be an int"):
        engine.method(num_returns="2")
    with pytest.raises(TypeError, match="num_return"):
        engine.method(num_return=2)


def test_options_start_from_those_given_before():
    first = engine.remote(num_cpus=2, max_retries=-1)(function)
    second = first.options(num_cpus=3)
    assert (first._options.num_cpus, first._options.max_retries) == (2, -1)
    assert (second._options.num_cpus, second._options.max_retries) == (3, -1)
    assert second.options()._options == second._options


def test_right_options_are_taken():
    merged = merge_task_options(
        TaskOptions(),
        {"num_cpus": 0, "num_gpus": 0.5, "resources": {"camera": 1}, "num_returns": 0, "max_retries": 0,
         "name": "n", "scheduling_strategy": NearObject(None)},
    )  # fmt: skip
    assert merged.num_returns == 0
    assert merge_task_options(TaskOptions(), {"scheduling_strategy": "DEFAULT"}).num_cpus == 1
    actor = merge_actor_options(ActorOptions(), {"name": "a", "get_if_exists": True, "max_restarts": -1})
    assert (actor.name, actor.num_cpus) == ("a", 0)


def test_demand_is_in_whole_units():
    options = TaskOptions(num_cpus=0.1, num_gpus=0, resources={"camera": 0.3, "nothing": 0})
    assert demand(options) == {"CPU": 1000, "camera": 3000}
    assert demand(ActorOptions()) == {}


@given(st.lists(st.integers(1, UNITS), min_size=1, max_size=50))
def test_sums_of_fractions_are_exact(parts):
    """The reason for units: ten tasks of 0.1 CPU fill one CPU, in every order."""
    total = sum(demand(TaskOptions(num_cpus=part / UNITS))["CPU"] for part in parts)
    assert Fraction(total, UNITS) == sum(Fraction(part, UNITS) for part in parts)


def test_machine_resources():
    assert machine_resources(2, 0, None, 5) == {"CPU": 2 * UNITS, "memory": 5 * UNITS}
    assert machine_resources(0, 1, {"camera": 0.5}, 0) == {"CPU": 0, "GPU": UNITS, "camera": UNITS // 2}
    assert machine_resources(None, 0, {})["CPU"] >= UNITS
    whole = machine_resources(1, 0, {})["memory"]
    assert machine_resources(1, 0, {}, None, 1000)["memory"] == whole - 1000 * UNITS
