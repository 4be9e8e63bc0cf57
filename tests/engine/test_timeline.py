"""The timeline: what ran where and when."""

import json

import pytest
from waiting import wait_for

from rlflow import engine
from rlflow.engine.exceptions import UnsupportedError


@engine.remote
def square(x):
    return x * x


@engine.remote
class Counter:
    def add(self):
        return 1


def of_kind(kind):
    return [event for event in engine.timeline() if event["cat"] == kind]


def test_tasks_calls_and_events(tmp_path):
    engine.init(num_cpus=1)
    counter = Counter.remote()
    engine.get([square.remote(2), square.options(name="two").remote(3), counter.add.remote()])
    wait_for(lambda: len(of_kind("task")) == 2 and len(of_kind("call")) == 1, "the history is written")
    first, second = of_kind("task")
    assert (first["name"], second["name"], first["ph"]) == ("square", "two", "X")
    assert 0 < first["ts"] <= second["ts"] and first["dur"] >= 0 and first["tid"].startswith("w")
    assert first["args"]["outcome"] == "finished"
    assert of_kind("call")[0]["name"] == "Counter.add"
    assert "driver joined" in [event["name"] for event in of_kind("engine")]
    assert engine.timeline(tmp_path / "trace.json") is None
    written = json.loads((tmp_path / "trace.json").read_text())
    assert [event["ts"] for event in written] == sorted(event["ts"] for event in written)
    assert {"square", "two", "Counter.add"} <= {event["name"] for event in written}
    del counter
    engine.shutdown()


def test_who_has_none(cluster):
    @engine.remote
    def ask():
        engine.timeline()

    with pytest.raises(UnsupportedError, match=r"timeline\(\)"):
        engine.get(ask.remote())
    if cluster == "inline":
        with pytest.raises(UnsupportedError, match="needs the control store"):
            engine.timeline()
