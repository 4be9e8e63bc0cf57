"""Threads that wait at one endpoint: whoever leads, each of them hears of what it waits for."""

import threading
from collections.abc import Iterator

import msgspec
import pytest
from waiting import wait_for

from rlflow.engine import messages as m
from rlflow.engine.mailbox import Mailbox
from rlflow.engine.runtime.endpoint import Endpoint
from rlflow.engine.session import create_session, remove_session


@pytest.fixture
def arrived() -> set[str]:
    return set()


@pytest.fixture
def both_ends(arrived: set[str]) -> Iterator[tuple[Endpoint, Mailbox[m.ProcessFrame]]]:
    session = create_session(
        None, None, driver="driver", driver_pid=0, namespace="", capacity={}, gpus=[], runtime_env="",
        worker_memory=0, memory_threshold=1.0,
        object_store_memory=0, store_limit=0, log_to_driver=False, preload=[], sys_path=[],
    )
    endpoint = Endpoint(session, "a", lambda _, message: arrived.add(message.text))
    sender = Mailbox(session, "b", m.decode_process_frame)
    yield endpoint, sender
    endpoint.close()
    sender.close(0)
    remove_session(session)


def test_two_threads_take_over_from_the_background_thread_at_once(both_ends, arrived):
    """The second one waited for the lead itself, which the first one gives up only when it has what it waits for."""
    endpoint, sender = both_ends
    for turn in range(20):
        names = [f"{turn} {i}" for i in range(2)]
        wait_for(lambda: endpoint._background_leads, "the background thread leads")
        barrier = threading.Barrier(2)

        def wait(name, barrier=barrier):
            barrier.wait(30)
            endpoint.wait_until(lambda: name in arrived)

        threads = [threading.Thread(target=wait, args=(name,), daemon=True) for name in names]
        for thread in threads:
            thread.start()
        wait_for(lambda: endpoint._lead.locked() and not endpoint._background_leads, "one of them leads")
        for name, thread in zip(names, threads, strict=True):
            sender.send("a", [m.Print("stdout", "", name)])
            thread.join(30)
            assert not thread.is_alive(), f"{name} did not hear of its message"


@pytest.mark.parametrize("how", ["post", "batch", "submit", "report"])
def test_what_is_posted_while_another_thread_has_waited_long_is_sent(both_ends, arrived, how):
    """The background thread sleeps then, and nobody sent it."""
    endpoint, peer = both_ends
    waiting = threading.Thread(target=lambda: endpoint.wait_until(lambda: "enough" in arrived), daemon=True)
    waiting.start()
    wait_for(lambda: endpoint._parked, "the background thread sleeps")
    raw = msgspec.Raw(m.encode(m.Outcome(b"task", 0, "w1", m.FINISHED, 0.0, 0.0, [])))
    {
        "post": lambda: endpoint.post("b", m.Ping()),
        "batch": lambda: endpoint.batch("b", m.RawResults, raw),
        "submit": lambda: endpoint.submit(raw),
        "report": lambda: endpoint.report("b", raw),
    }[how]()
    if how == "submit":
        wait_for(lambda: len(endpoint.unacknowledged), "it was sent to the node")
    else:
        wait_for(lambda: peer.wait(0) or peer.receive() or peer.frames, "it has come")
    peer.send("a", [m.Print("stdout", "", "enough")])
    waiting.join(30)
    assert not waiting.is_alive()
