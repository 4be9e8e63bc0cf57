"""The scheduler fed by hand: tasks that wait for tasks, workers that die, and messages that cross."""

from scheduling import LONG, SHORT, Feed, assert_books_balance


def test_a_blocked_task_gives_its_cpus_back_and_keeps_the_rest():
    feed = Feed(CPU=1, disk=1)
    feed.workers("w1", "w2")
    feed.submit("parent", CPU=1, disk=1)
    feed.submit("other")
    assert feed.plan() == {"w2": ["parent"]}
    feed.block("w2")
    assert feed.scheduler.free == {"CPU": 1, "disk": 0}
    assert feed.plan() == {"w1": ["other"]}
    feed.scheduler.unblocked("w2")
    assert feed.scheduler.free == {"CPU": -1, "disk": 0}  # overdrawn until the other is done
    feed.submit("third")
    assert feed.plan() == {}
    feed.finish("w1", "other")
    assert feed.plan() == {}
    feed.finish("w2", "parent")
    assert len(feed.plan()) == 1


def test_an_awaited_task_runs_on_top_of_the_one_that_waits():
    feed = Feed(CPU=1)
    feed.workers("w1")
    feed.submit("parent")
    feed.plan()
    feed.submit("stranger", "child")
    feed.block("w1", "child")
    assert feed.plan() == {"w1": ["child"]}
    assert feed.tasks["child"].nested and not feed.tasks["parent"].nested
    feed.submit("grandchild")
    feed.block("w1", "grandchild")
    assert feed.plan() == {"w1": ["grandchild"]}  # depth first, no new worker
    feed.finish("w1", "grandchild")
    feed.scheduler.unblocked("w1")
    feed.finish("w1", "child")
    feed.scheduler.unblocked("w1")
    feed.finish("w1", "parent")
    assert feed.plan() == {"w1": ["stranger"]}
    feed.finish("w1", "stranger")
    assert feed.scheduler.free == {"CPU": 1}


def test_with_all_workers_blocked_another_one_is_asked_for():
    feed = Feed(prestart=1, CPU=1)
    feed.plan()
    feed.workers("w1")
    feed.submit("parent")
    feed.plan()
    feed.submit("child")
    feed.block("w1")
    assert feed.plan() == {}
    assert feed.last.start_workers == 1


def test_the_creation_of_an_actor_is_never_nested():
    feed = Feed(prestart=1, CPU=1)
    feed.workers("w1")
    feed.submit("parent")
    feed.plan()
    feed.submit("actor", exclusive=True)
    feed.block("w1", "actor")
    assert feed.plan() == {}
    assert feed.last.start_workers == 1


def test_blocking_gives_back_the_queue():
    feed = Feed(CPU=2)
    feed.workers("w1")
    feed.learn("f", SHORT, "w1")
    feed.submit("a", "b", "c")
    assert feed.plan() == {"w1": ["a", "b", "c"]}
    feed.block("w1", returned=("b", "c"))
    feed.workers("w2")
    assert feed.plan() == {"w2": ["b", "c"]}
    feed.scheduler.unblocked("w1")
    feed.submit("d")
    feed.finish("w2", "b", duration=SHORT)
    assert "w1" not in feed.plan()  # nothing is queued behind a task of unknown length


def test_a_dead_workers_tasks_come_back_in_their_order():
    feed = Feed(CPU=2)
    feed.workers("w1")
    feed.learn("f", SHORT, "w1")
    feed.submit("a", "b", "c")
    feed.plan()
    feed.submit("d")
    assert feed.die("w1") == (["a"], ["b", "c"])
    feed.scheduler.retry(feed.tasks["a"])
    feed.workers("w2")
    assert feed.plan() == {"w2": ["a", "b", "c", "d"]}


def test_a_worker_that_dies_while_blocked_frees_all_it_held():
    feed = Feed(CPU=2, disk=1)
    feed.workers("w1")
    feed.submit("parent", CPU=1, disk=1)
    feed.plan()
    feed.submit("child")
    feed.block("w1", "child")
    feed.plan()
    running, requeued = feed.die("w1")
    assert sorted(running) == ["child", "parent"] and not requeued
    assert feed.scheduler.free == {"CPU": 2, "disk": 1}
    assert feed.plan() == {}


def test_an_actor_that_dies_while_it_waits_frees_all_it_held():
    feed = Feed(CPU=1, disk=1)
    feed.workers("w1")
    feed.submit("actor", exclusive=True, CPU=1, disk=1)
    feed.plan()
    feed.scheduler.became_actor("w1")
    feed.block("w1")
    assert feed.scheduler.free == {"CPU": 1, "disk": 0}
    assert feed.die("w1") == (["actor"], [])
    assert feed.scheduler.free == {"CPU": 1, "disk": 1}
    assert feed.scheduler.held_by_actors == {"CPU": 0, "disk": 0}


def test_messages_of_a_dead_worker_change_nothing():
    feed = Feed(CPU=1)
    feed.workers("w1")
    feed.submit("a", exclusive=True)
    feed.plan()
    feed.die("w1")
    assert feed.scheduler.finished("w1", b"a", LONG) is None
    assert not feed.scheduler.became_actor("w1")
    feed.block("w1")
    feed.scheduler.unblocked("w1")
    feed.give_back("w1", "a")
    assert feed.scheduler.free == {"CPU": 1}


def test_a_nested_task_that_comes_too_late_waits_behind_the_one_that_resumed():
    """The result came from elsewhere (its first worker died after sending it) while the retry was on its way."""
    feed = Feed(CPU=1, disk=1)
    feed.workers("w1")
    feed.submit("parent", CPU=1, disk=1)
    feed.plan()
    feed.submit("child")
    feed.block("w1", "child")
    assert feed.plan() == {"w1": ["child"]}
    feed.scheduler.unblocked("w1")  # the child has not been started
    assert_books_balance(feed.scheduler)
    feed.finish("w1", "parent")
    feed.submit("next")
    assert feed.plan() == {}
    feed.finish("w1", "child")
    assert feed.plan() == {"w1": ["next"]}
    feed.finish("w1", "next")
    assert feed.scheduler.free == {"CPU": 1, "disk": 1}


def test_a_nested_task_that_came_too_late_is_given_back_by_the_next_get():
    feed = Feed(CPU=1)
    feed.workers("w1", "w2")
    feed.submit("parent")
    feed.plan()
    feed.submit("child")
    feed.block("w2", "child")
    feed.plan()
    feed.scheduler.unblocked("w2")
    feed.block("w2", returned=("child",))
    assert_books_balance(feed.scheduler)
    assert feed.plan() == {"w1": ["child"]}
    feed.scheduler.unblocked("w2")
    feed.finish("w1", "child")
    feed.finish("w2", "parent")
    assert feed.scheduler.free == {"CPU": 1}


def test_a_task_that_resumed_and_blocks_again_gives_back_its_own_cpus():
    """Not those of the nested task that came too late and is still on its way."""
    feed = Feed(CPU=3)
    feed.workers("w1")
    feed.submit("parent", CPU=3)
    feed.plan()
    feed.submit("child")
    feed.block("w1", "child")
    assert feed.plan() == {"w1": ["child"]}
    feed.scheduler.unblocked("w1")
    feed.block("w1")
    assert feed.scheduler.free == {"CPU": 2}
    feed.finish("w1", "child")
    assert feed.scheduler.free == {"CPU": 3}
    feed.scheduler.unblocked("w1")
    feed.finish("w1", "parent")
    assert feed.scheduler.free == {"CPU": 3}


def test_nothing_is_queued_at_a_worker_that_is_blocked():
    feed = Feed(CPU=2)
    feed.workers("w1")
    feed.learn("f", SHORT, "w1")
    feed.submit("parent")
    feed.plan()
    feed.submit("child")
    feed.block("w1", "child")
    assert feed.plan() == {"w1": ["child"]}
    feed.submit("stranger")
    assert feed.plan() == {}


def test_a_refill_that_crosses_with_blocking_is_given_back():
    """It was on its way when the worker blocked; run on top it might wait for the task beneath it, for ever."""
    feed = Feed(CPU=2)
    feed.workers("w1")
    feed.learn("f", SHORT, "w1")
    feed.submit("parent")
    feed.plan()
    feed.submit("late")
    assert feed.plan() == {"w1": ["late"]}
    assert not feed.tasks["late"].nested
    feed.submit("child")
    feed.block("w1", "child")
    assert feed.plan() == {"w1": ["child"]}
    feed.give_back("w1", "late")
    assert_books_balance(feed.scheduler)
    feed.workers("w2")
    assert feed.plan() == {"w2": ["late"]}
    feed.finish("w1", "child")
    feed.finish("w2", "late")
    feed.scheduler.unblocked("w1")
    feed.finish("w1", "parent")
    assert feed.scheduler.free == {"CPU": 2}


def test_cpus_cannot_be_given_back_twice():
    feed = Feed(CPU=1)
    feed.workers("w1")
    feed.submit("a")
    feed.plan()
    feed.block("w1")
    feed.block("w1")
    assert_books_balance(feed.scheduler)
    feed.scheduler.unblocked("w1")
    feed.scheduler.unblocked("w1")
    feed.finish("w1", "a")
    assert feed.scheduler.free == {"CPU": 1}
