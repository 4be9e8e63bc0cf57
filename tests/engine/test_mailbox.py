"""Frames arrive whole and in order, whichever way each of them took."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlflow.engine import messages as m
from rlflow.engine.lane import LONGEST
from rlflow.engine.mailbox import Mailbox
from rlflow.engine.session import Session, create_session, remove_session

DEADLINE = 10.0
SHORT, LONG = 10, 2 * LONGEST


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    created = create_session(
        None, None, driver="driver", driver_pid=0, namespace="", capacity={}, gpus=[], runtime_env="",
        worker_memory=0, memory_threshold=1.0,
        object_store_memory=0, store_limit=0, log_to_driver=False, preload=[], sys_path=[],
    )
    yield created
    remove_session(created)


@pytest.fixture
def boxes(session: Session) -> Iterator["Boxes"]:
    with ExitStack() as stack:
        yield Boxes(session, stack)


class Boxes:
    def __init__(self, session: Session, stack: ExitStack) -> None:
        self.session = session
        self._stack = stack

    def open(self, name: str) -> Mailbox[m.ProcessFrame]:
        box = Mailbox(self.session, name, m.decode_process_frame)
        self._stack.callback(box.close, 0)
        return box


def text(number: int, size: int) -> m.Print:
    return m.Print("stdout", str(number), "x" * size)


def numbers(box: Mailbox[m.ProcessFrame], count: int) -> list[tuple[str, int]]:
    """(sender, number of its message) of the next ``count`` frames."""
    deadline = time.monotonic() + DEADLINE
    found: list[tuple[str, int]] = []
    while len(found) < count:
        assert time.monotonic() < deadline, f"only {len(found)} of {count} frames came"
        box.wait(0.1)
        box.receive()
        while box.frames and len(found) < count:
            frame = box.frames.popleft()
            (message,) = frame.messages
            assert isinstance(message, m.Print)
            found.append((frame.sender, int(message.source)))
    return found


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([SHORT, LONG]), min_size=1, max_size=60))
def test_order_is_kept_when_long_and_short_frames_mix(session: Session, sizes: list[int]) -> None:
    with ExitStack() as stack:
        boxes = Boxes(session, stack)
        sender, receiver = boxes.open("a"), boxes.open("b")
        for i, size in enumerate(sizes):
            sender.send("b", [text(i, size)])
        assert numbers(receiver, len(sizes)) == [("a", i) for i in range(len(sizes))]


def test_a_receiver_that_does_not_read_blocks_nobody_and_loses_nothing(boxes: Boxes) -> None:
    sender, receiver = boxes.open("a"), boxes.open("b")
    for i in range(5000):  # the kernel keeps ten
        sender.send("b", [text(i, SHORT)])
    assert numbers(receiver, 5000) == [("a", i) for i in range(5000)]


def test_a_full_receiver_does_not_slow_the_way_to_others(boxes: Boxes) -> None:
    sender, _, other = boxes.open("a"), boxes.open("full"), boxes.open("other")
    for i in range(500):
        sender.send("full", [text(i, LONGEST // 2)])
    sender.send("other", [text(0, SHORT)])
    assert numbers(other, 1) == [("a", 0)]


def test_mail_for_a_process_that_is_still_starting_waits_for_it(boxes: Boxes) -> None:
    sender = boxes.open("a")
    sender.send("late", [text(0, SHORT)])
    receiver = boxes.open("late")
    sender.send("late", [text(1, SHORT)])
    assert numbers(receiver, 2) == [("a", 0), ("a", 1)]


def test_senders_do_not_wait_for_one_another(boxes: Boxes) -> None:
    receiver = boxes.open("b")
    deliver(receiver, boxes, "dead", 1)  # its number 0 is lost
    boxes.open("a").send("b", [text(0, SHORT)])
    assert numbers(receiver, 1) == [("a", 0)]


def test_what_a_dead_process_left_behind_a_gap_is_handed_over(boxes: Boxes) -> None:
    receiver = boxes.open("b")
    for number in (0, 3, 2):
        deliver(receiver, boxes, "dead", number)
    assert numbers(receiver, 1) == [("dead", 0)]
    boxes.open("a").send("b", [text(0, SHORT)])
    assert numbers(receiver, 1) == [("a", 0)]  # by now 3 and 2 have come
    receiver.end_of("dead")
    assert numbers(receiver, 2) == [("dead", 2), ("dead", 3)]


def test_the_last_words_of_a_dead_process_are_handed_over_as_they_come(boxes: Boxes) -> None:
    receiver = boxes.open("b")
    receiver.end_of("dead")
    deliver(receiver, boxes, "dead", 7)
    assert numbers(receiver, 1) == [("dead", 7)]


def test_a_watched_fd_ends_the_wait(boxes: Boxes) -> None:
    box = boxes.open("a")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        box.watch(ours.fileno())
        theirs.send(b"x")
        box.wait(DEADLINE)
        assert box.receive() == [ours.fileno()]


def test_a_closed_box_leaves_no_file(boxes: Boxes) -> None:
    folder = Path(boxes.session.folder)
    before = set(folder.iterdir())
    with ExitStack() as stack:
        Boxes(boxes.session, stack).open("brief")
    assert set(folder.iterdir()) <= before | {folder / "brief.sock"}


def deliver(receiver: Mailbox[m.ProcessFrame], boxes: Boxes, sender: str, number: int) -> None:
    """A frame of a sender some of whose other frames are lost."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as lane:
        lane.sendto(m.encode(m.OutFrame(sender, number, [text(number, SHORT)])), boxes.session.lane(receiver.name))


def test_what_is_for_a_dead_process_is_dropped_and_opens_nothing(boxes: Boxes) -> None:
    box = boxes.open("a")
    boxes.open("w1")
    box.send("w1", [text(0, LONG)])
    box.end_of("w1")
    box.forget("w1")
    box.send("w1", [text(1, LONG)])
    assert not box._peers and not box.peers()
