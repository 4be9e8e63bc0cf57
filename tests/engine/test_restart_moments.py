"""The daemon is killed at a chosen moment, with a frame lost or late: nothing is lost, and nothing is run twice."""

import os
import time

import pytest
from crashing import note, noted
from restarting import kill_daemon, nothing_is_left, without_daemon
from waiting import start_engine, wait_for

from rlflow import engine
from rlflow.engine import api
from rlflow.engine import messages as m
from rlflow.engine.node.daemon import ACKNOWLEDGE_EVERY
from rlflow.engine.testing import delay, drop, inject

SUCCESSORS = "node.*"


@pytest.fixture
def restarted():
    """Starts an engine under faults; in the end nothing may be left in it."""
    yield start_engine
    try:
        wait_for(nothing_is_left, "nothing is left")
    finally:
        engine.shutdown()


@engine.remote
def noting(path, go=None):
    note(path)
    while go is not None and not os.path.exists(go):
        time.sleep(0.01)
    return os.path.basename(path)


def test_the_frame_behind_an_acknowledged_one_is_sent_again(restarted, tmp_path):
    with inject(drop(m.Submit, nth=2, sender="driver")) as faults:
        restarted()
        endpoint = api.current_backend().endpoint
        while endpoint._mail._sent["node"] < ACKNOWLEDGE_EVERY - 1:
            engine.available_resources()
        with endpoint.posting:  # the acknowledgement may not come between the two
            first = noting.remote(tmp_path / "first")
            endpoint.flush()
            second = noting.remote(tmp_path / "second")
            endpoint.flush()
        assert faults.happened() == [1]
        assert engine.get(first) == "first"
        wait_for(lambda: len(endpoint.unacknowledged) <= 1, "the node acknowledges")
        kill_daemon()
        assert engine.get(second, timeout=30) == "second"


def test_older_frames_of_the_driver_are_waited_for(restarted, tmp_path):
    with inject(delay(m.Submit, 0.3, sender="driver", receiver=SUCCESSORS)) as faults:
        restarted()
        go = tmp_path / "go"
        refs = [noting.remote(tmp_path / name, go) for name in ("one", "two")]
        wait_for(lambda: noted(tmp_path / "one") + noted(tmp_path / "two") == 2, "both run")
        with without_daemon():
            go.touch()
            assert engine.get(refs) == ["one", "two"]
        wait_for(lambda: faults.happened() == [1], "they were submitted again")
        assert engine.get(noting.remote(tmp_path / "three")) == "three"
        assert [noted(tmp_path / name) for name in ("one", "two", "three")] == [1, 1, 1]
