"""The scheduler fed by hand: order, shares, pipelines and workers. See also ``test_scheduler_*.py``."""

from scheduling import LONG, SHORT, Feed, everything

from rlflow.engine.node.scheduler import PIPELINE_SECONDS, PIPELINE_TASKS, Task
from rlflow.engine.node.staff import MAX_WORKERS


def test_first_in_first_out_within_a_shape():
    feed = Feed(CPU=1)
    feed.workers("w1")
    feed.submit("a", "b", "c")
    order = []
    while handed := feed.plan():
        (name,) = handed["w1"]
        order.append(name)
        feed.finish("w1", name)
    assert order == ["a", "b", "c"]


def test_nothing_is_granted_beyond_what_is_free():
    feed = Feed(CPU=3, disk=1)
    feed.workers("w1", "w2", "w3", "w4")
    feed.submit("a", "b", CPU=1, disk=1)
    feed.submit("c", "d", CPU=2)
    assert everything(feed.plan()) == ["a", "c"]
    assert feed.scheduler.free == {"CPU": 0, "disk": 0}


def test_a_wide_task_is_not_starved_by_younger_narrow_ones():
    feed = Feed(CPU=2)
    feed.workers("w1", "w2")
    feed.submit("long")
    feed.plan()
    feed.submit("wide", CPU=2)
    feed.submit("young")
    assert feed.plan() == {}  # a CPU is free, and kept for the wide one
    feed.finish("w2", "long")
    assert list(feed.plan().values()) == [["wide"]]
    assert feed.plan() == {}


def test_a_wide_task_is_not_starved_by_refills():
    feed = Feed(CPU=2)
    feed.workers("w1", "w2")
    feed.learn("f", SHORT, "w2")
    feed.submit(*(f"short{i}" for i in range(300)))
    queues = feed.plan()
    assert len(queues) == 2
    feed.submit("wide", CPU=2)
    feed.submit(*(f"young{i}" for i in range(3000)))
    handed = []
    while any(queues.values()) and "wide" not in handed:
        for worker, names in queues.items():  # never at rest at once: a lease ends only when nothing is added
            if names:
                feed.finish(worker, names.pop(0), duration=SHORT)
                for other, more in feed.plan().items():
                    queues[other] += more
                    handed += more
    assert "wide" in handed
    assert sum(name.startswith("young") for name in handed) <= 2 * PIPELINE_SECONDS / SHORT  # one refill each


def test_two_lacking_resources_cannot_starve_a_task_by_turns():
    """While it waits for the disk the CPU is taken by a younger task; the disk must not be, when it comes back."""
    feed = Feed(CPU=1, disk=1)
    feed.workers("w1", "w2")
    feed.submit("user0", disk=1)
    feed.plan()
    feed.submit("both", CPU=1, disk=1)
    feed.submit("cpu0", CPU=1)
    assert feed.plan() == {"w1": ["cpu0"]}
    feed.finish("w2", "user0")
    feed.submit("user1", disk=1)
    assert feed.plan() == {}
    feed.finish("w1", "cpu0")
    feed.submit("cpu1", CPU=1)
    assert everything(feed.plan()) == ["both"]


def test_what_only_one_shape_lacks_stays_free_for_others():
    feed = Feed(CPU=2, disk=1)
    feed.workers("w1", "w2")
    feed.submit("user", "next_user", disk=1)
    feed.submit("cpu")
    assert everything(feed.plan()) == ["cpu", "user"]


def test_what_can_never_fit_blocks_nobody():
    feed = Feed(CPU=1)
    feed.workers("w1")
    monster = Task(b"monster", b"f", {"CPU": 2})
    alien = Task(b"alien", b"f", {"antimatter": 1})
    assert not feed.scheduler.submit(monster)
    assert not feed.scheduler.submit(alien)
    feed.submit("a")
    assert feed.plan() == {"w1": ["a"]}
    feed.finish("w1", "a")
    assert feed.plan() == {}


def test_cpus_of_actors_cannot_be_reserved():
    feed = Feed(CPU=2)
    feed.workers("w1", "w2")
    feed.submit("actor", exclusive=True)
    feed.plan()
    feed.scheduler.became_actor("w2")
    feed.submit("wide", CPU=2)
    feed.submit("narrow")
    assert feed.plan() == {"w1": ["narrow"]}
    feed.finish("w1", "narrow")
    feed.submit("narrow2")
    assert feed.die("w2") == (["actor"], [])
    assert feed.plan() == {"w1": ["wide"]}  # possible now, and the oldest


def test_what_blocked_tasks_hold_cannot_be_reserved():
    """Or a task that waits in ``get`` with a disk in hand could never get the disk that its child needs."""
    feed = Feed(CPU=2, disk=2)
    feed.workers("w1", "w2")
    feed.submit("parent", CPU=1, disk=1)
    feed.plan()
    feed.submit("wide", disk=2)
    feed.submit("child", CPU=1, disk=1)
    feed.block("w2")  # with a time-out: it must not run the child itself
    assert feed.plan() == {"w1": ["child"]}
    feed.scheduler.unblocked("w2")
    feed.finish("w1", "child")
    feed.submit("young", disk=1)
    assert feed.plan() == {}
    feed.finish("w2", "parent")
    assert everything(feed.plan()) == ["wide"]


def test_only_functions_known_to_be_short_are_pipelined():
    feed = Feed(CPU=1)
    feed.workers("w1")
    feed.submit("a0", "a1", function="unknown")
    assert feed.plan() == {"w1": ["a0"]}
    feed.finish("w1", "a0", duration=LONG)
    assert feed.plan() == {"w1": ["a1"]}
    feed.finish("w1", "a1", duration=LONG)
    feed.submit("b0", "b1", function="unknown")
    assert feed.plan() == {"w1": ["b0"]}  # known, and long
    feed.finish("w1", "b0", duration=LONG)
    feed.plan()
    feed.finish("w1", "b1", duration=LONG)
    feed.learn("short", SHORT, "w1")
    feed.submit(*(f"c{i}" for i in range(1000)), function="short")
    handed = feed.plan()["w1"]
    assert handed == [f"c{i}" for i in range(len(handed))]
    assert 50 <= len(handed) <= 1 + PIPELINE_SECONDS / SHORT


def test_a_queue_at_a_worker_is_bounded_and_shared_fairly():
    feed = Feed(CPU=2)
    feed.workers("w1", "w2")
    feed.learn("f", 0.0, "w2")
    feed.submit(*(f"t{i}" for i in range(10)))
    assert sorted(map(len, feed.plan().values())) == [5, 5]
    feed.submit(*(f"u{i}" for i in range(3000)))
    assert all(len(names) <= PIPELINE_TASKS for names in feed.plan().values())


def test_revoked_tasks_go_to_an_idle_worker_in_their_order():
    feed = Feed(CPU=2)
    feed.workers("w1")
    feed.learn("f", SHORT, "w1")
    feed.submit("a", "b", "c", "d")
    assert feed.plan() == {"w1": ["a", "b", "c", "d"]}
    assert feed.scheduler.overdue() == []  # nobody is idle
    assert feed.scheduler.overdue() == []
    feed.workers("w2")
    assert feed.scheduler.has_pipelined()
    assert feed.scheduler.overdue() == []  # it may have begun just now
    assert feed.scheduler.overdue() == ["w1"]
    assert feed.scheduler.overdue() == []  # asked once
    feed.give_back("w1", "b", "c", "d")
    assert feed.plan() == {"w2": ["b", "c", "d"]}
    feed.finish("w2", "b", "c", "d", duration=SHORT)
    feed.finish("w1", "a")
    assert feed.scheduler.free == {"CPU": 2}


def test_a_worker_that_gets_on_with_its_queue_keeps_it():
    feed = Feed(CPU=2)
    feed.workers("w1")
    feed.learn("f", SHORT, "w1")
    feed.submit("a", "b", "c", "d")
    feed.plan()
    feed.workers("w2")
    for ended in "ab":
        assert feed.scheduler.overdue() == []
        feed.finish("w1", ended, duration=SHORT)
    assert feed.scheduler.overdue() == []
    assert feed.scheduler.overdue() == ["w1"]


def test_returned_tasks_of_several_workers_are_handed_out_by_age():
    feed = Feed(CPU=2)
    feed.workers("w1", "w2")
    feed.learn("f", SHORT, "w2")
    feed.submit(*"abcdef")
    handed = feed.plan()
    for worker in sorted(handed, key=lambda worker: handed[worker]):  # that with the older ones first
        feed.give_back(worker, *handed[worker][1:])
        feed.finish(worker, handed[worker][0])
    order = []
    while handed := feed.plan():
        order += sorted(handed)
        for worker, names in handed.items():
            order += names
            feed.finish(worker, *names)
    names = [name for name in order if len(name) == 1]
    assert names == sorted(names)


def test_prefer_takes_the_named_worker_when_it_is_idle():
    feed = Feed(CPU=3)
    feed.workers("w1", "w2", "w3")
    feed.submit("a", prefer="w1")
    assert feed.plan() == {"w1": ["a"]}
    feed.submit("b", prefer="w1")
    (worker,) = feed.plan()
    assert worker != "w1"  # soft


def test_a_preferred_worker_that_is_gone_does_not_end_the_pipeline():
    feed = Feed(CPU=1)
    feed.workers("w1")
    feed.learn("f", SHORT, "w1")
    feed.submit("a", "b", "c", prefer="gone")
    assert feed.plan() == {"w1": ["a", "b", "c"]}


def test_the_creation_of_an_actor_is_alone_on_its_worker():
    feed = Feed(CPU=2)
    feed.workers("w1")
    feed.learn("f", SHORT, "w1")
    feed.submit("actor", exclusive=True)
    feed.submit("a", "b")
    assert feed.plan() == {"w1": ["actor"]}
    feed.scheduler.became_actor("w1")
    feed.workers("w2")
    assert feed.plan() == {"w2": ["a", "b"]}


def test_a_creation_that_failed_leaves_its_worker_to_others():
    feed = Feed(CPU=1)
    feed.workers("w1")
    feed.submit("actor", exclusive=True)
    feed.submit("task")
    assert feed.plan() == {"w1": ["actor"]}
    feed.finish("w1", "actor")
    assert feed.plan() == {"w1": ["task"]}


def test_workers_are_asked_for_when_they_lack_and_stopped_when_they_are_too_many():
    feed = Feed(prestart=2, CPU=4)
    feed.plan()
    assert feed.last.start_workers == 2
    feed.plan()
    assert feed.last.start_workers == 0  # they are coming
    feed.workers("w1", "w2", "w3")
    feed.plan()
    assert feed.last.stop_workers == ["w1"]
    feed.submit("a", "b", "c")
    assert len(feed.plan()) == 2
    assert feed.last.start_workers == 1


def test_a_worker_that_does_not_come_is_asked_for_again():
    feed = Feed(prestart=1, CPU=1)
    feed.plan()
    feed.scheduler.start_failed()
    feed.plan()
    assert feed.last.start_workers == 1


def test_a_worker_that_became_an_actor_is_replaced():
    feed = Feed(prestart=1, CPU=1)
    feed.plan()
    feed.workers("w1")
    feed.submit("actor", exclusive=True)
    assert feed.plan() == {"w1": ["actor"]}
    assert feed.last.start_workers == 0
    feed.scheduler.became_actor("w1")
    feed.plan()
    assert feed.last.start_workers == 1


def test_actors_do_not_count_against_the_cap_on_workers():
    """Somebody asked for each of them; the cap is for tasks that wait for tasks."""
    feed = Feed(prestart=0, CPU=1, slots=1000)
    for i in range(MAX_WORKERS):
        feed.submit(f"actor{i}", exclusive=True, slots=1)
        feed.workers(f"w{i}")
        feed.plan()
        feed.scheduler.became_actor(f"w{i}")
    feed.submit("task")
    feed.plan()
    assert feed.last.start_workers == 1


def test_a_task_that_was_withdrawn_is_not_handed_out():
    feed = Feed(CPU=1)
    feed.workers("w1")
    feed.submit("a", "b")
    feed.scheduler.withdraw(feed.tasks["a"])
    assert feed.plan() == {"w1": ["b"]}
