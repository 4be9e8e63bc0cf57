"""What the node has not acknowledged is kept and can be sent again, in order; nothing is run twice (guarantee 1)."""

import time
from contextlib import ExitStack

import msgspec
import pytest
from test_mailbox import DEADLINE, LONG, SHORT, boxes, numbers, session, text
from waiting import start_engine, wait_for

from rlflow import engine
from rlflow.engine import api
from rlflow.engine import messages as m
from rlflow.engine.mailbox import Mailbox
from rlflow.engine.unacknowledged import BYTES_PER_ASKING, FRAMES_PER_ASKING

__all__ = ["boxes", "session"]  # fixtures


class Node:
    """Receives what processes send to the node."""

    def __init__(self, boxes, stack, inbox="node"):
        self.box = Mailbox(boxes.session, inbox, m.decode_node_frame)
        stack.callback(self.box.close, 0)

    def read(self, count):
        """The numbers of the next ``count`` texts, and the frames whose acknowledgement was asked for."""
        deadline = time.monotonic() + DEADLINE
        texts, asked = [], []
        while len(texts) < count:
            assert time.monotonic() < deadline, f"only {len(texts)} of {count} frames came"
            self.box.wait(0.1)
            self.box.receive()
            while self.box.frames and len(texts) < count:
                for message in self.box.frames.popleft().messages:
                    if isinstance(message, m.Print):
                        texts.append(int(message.source))
                    else:
                        asked.append(message.frame)
        return texts, asked


def test_what_a_receiver_took_with_it_goes_to_its_successor_in_order(boxes):
    sender = boxes.open("a")
    kept = sender.keep("node")
    with ExitStack() as first:
        node = Node(boxes, first)
        for i in range(40):
            sender.send("node", [text(i, LONG if i % 3 else SHORT)])
        assert node.read(10)[0] == list(range(10))
        kept.acknowledged(5)  # of what it had read some was not safe, the rest it had not even read
    with ExitStack() as second:
        successor = Node(boxes, second, "node-1")
        for messages in sender.moved("node", "node-1"):
            sender.send("node", messages)
        sender.send("node", [text(40, SHORT)])
        assert successor.read(35)[0] == list(range(6, 41))
    assert len(kept) == 35


def test_frames_that_come_twice_are_handed_over_once(boxes):
    sender, receiver = boxes.open("a"), boxes.open("b")
    for i in range(3):
        sender.send("b", [text(i, SHORT)])
    assert numbers(receiver, 3) == [("a", 0), ("a", 1), ("a", 2)]
    sender._sent["b"] = 1  # as if frames 1 and 2 were repeated
    for i in (1, 2, 3):
        sender.send("b", [text(i, SHORT)])
    assert numbers(receiver, 1) == [("a", 3)]
    assert not receiver._early


@pytest.mark.parametrize(("size", "most"), [(10, FRAMES_PER_ASKING), (BYTES_PER_ASKING // 4, 4)])
def test_acknowledgement_is_asked_for_now_and_then(boxes, size, most):
    sender = boxes.open("a")
    sender.keep("node")
    with ExitStack() as stack:
        node = Node(boxes, stack)
        for i in range(3 * most + 1):
            sender.send("node", [text(i, size)])
        assert node.read(3 * most + 1)[1] == [most, 2 * most, 3 * most]


# ---------------------------------------------------------------- in the engine


@engine.remote
def mark(folder, name):
    with open(folder / name, "a") as file:
        file.write("x")
    return name


@engine.remote
def until_there(path):
    while not path.exists():
        pass


@pytest.fixture
def started(no_leaks):
    start_engine(num_cpus=2)
    yield api.current_backend()
    engine.shutdown()


def sent_specs(backend) -> list[msgspec.Raw]:
    """Of all tasks that the node has not acknowledged."""
    return [
        raw for _, messages in backend.endpoint.unacknowledged._frames
        for message in messages if isinstance(message, m.Submit) for raw in message.items
    ]


def test_tasks_that_are_sent_again_run_once(started, tmp_path):
    """Those that have ended, run, and wait; as if the node had been replaced after it had handled their frames."""
    gate = tmp_path / "gate"
    ended = [mark.remote(tmp_path, f"ended{i}") for i in range(3)]
    assert engine.get(ended) == [f"ended{i}" for i in range(3)]
    running = until_there.remote(gate)
    waiting = [mark.remote(tmp_path, f"waiting{i}") for i in range(20)]
    after = mark.remote(tmp_path, running and "after")
    started.endpoint.flush()
    specs = sent_specs(started)
    assert len(specs) == 25
    for _ in range(2):
        started.post_node(m.Resubmit(list(specs)))
        started.endpoint.flush()
    gate.touch()
    assert engine.get([*waiting, after]) == [f"waiting{i}" for i in range(20)] + ["after"]
    engine.get(running)
    wait_for(lambda: started.census()["tasks"] == 0, "all tasks end")
    marks = {path.name: path.read_text() for path in tmp_path.iterdir() if path != gate}
    assert marks == dict.fromkeys([*engine.get(ended), *engine.get(waiting), "after"], "x")
    assert not started.unfinished.tasks()


def test_a_task_whose_first_frame_was_lost_runs(started, tmp_path):
    """The node has never seen it."""
    real = started.endpoint._mail.send
    lost = []
    started.endpoint._mail.send = lambda peer, messages: lost.append((peer, messages))
    try:
        ref = mark.remote(tmp_path, "lost")
        started.endpoint.flush()
    finally:
        started.endpoint._mail.send = real
    for peer, messages in lost:
        real(peer, [m.Resubmit(message.items) if isinstance(message, m.Submit) else message for message in messages])
    assert engine.get(ref) == "lost"


def test_what_is_kept_is_bounded(started, tmp_path):
    for _ in range(10):
        engine.get([mark.remote(tmp_path, "same") for _ in range(200)])
    for _ in range(300):
        engine.get(mark.remote(tmp_path, "same"))
    wait_for(lambda: len(started.endpoint.unacknowledged) <= 2 * FRAMES_PER_ASKING, "the node acknowledges")
