"""What the node has not acknowledged is kept and can be sent again, in order; nothing is run twice (guarantee 1)."""

import time
from contextlib import ExitStack

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

    def report(self):
        """The messages of the first frame, which is outside of the order."""
        deadline = time.monotonic() + DEADLINE
        while not self.box.frames:
            assert time.monotonic() < deadline, "no report came"
            self.box.wait(0.1)
            self.box.receive()
        frame = self.box.frames.popleft()
        assert frame.number == m.UNNUMBERED
        return frame.messages


def test_what_a_receiver_took_with_it_goes_to_its_successor_in_order(boxes):
    sender = boxes.open("a")
    kept = sender.keep("node", "node")
    with ExitStack() as first:
        node = Node(boxes, first)
        for i in range(40):
            sender.send("node", [text(i, LONG if i % 3 else SHORT)])
        assert node.read(10)[0] == list(range(10))
        kept.acknowledged(5)  # of what it had read some was not safe, the rest it had not even read
    with ExitStack() as second:
        successor = Node(boxes, second, "node-1")
        successor.box.hold_back("a")
        sender.moved("node", "node-1", m.Report("worker", 1, []))
        sender.send("node", [text(40, SHORT)])
        (report,) = successor.report()
        assert (report.first, report.next) == (6, 40)
        successor.box.begin_at("a", 8)  # two more were safe, and not acknowledged
        assert successor.read(33)[0] == list(range(8, 41))
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
    sender.keep("node", "node")
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


@pytest.fixture
def started(no_leaks):
    start_engine(num_cpus=2)
    yield api.current_backend()
    engine.shutdown()


def test_what_is_kept_is_bounded(started, tmp_path):
    for _ in range(10):
        engine.get([mark.remote(tmp_path, "same") for _ in range(200)])
    for _ in range(300):
        engine.get(mark.remote(tmp_path, "same"))
    wait_for(lambda: len(started.endpoint.unacknowledged) <= 2 * FRAMES_PER_ASKING, "the node acknowledges")
