"""Workers of environments, as the scheduler deals with them: fed by hand."""

from scheduling import Feed

from rlflow.engine.node.scheduler import Task


def submit(feed, *names, environment="e", **demand):
    for name in names:
        task = feed.tasks[name] = Task(name.encode(), b"f", demand or {"CPU": 1})
        task.environment = environment
        assert feed.scheduler.submit(task)


def start(feed, name, environment="e"):
    feed.scheduler.worker_started(name, environment)


def test_a_task_runs_on_a_worker_of_its_environment_only():
    feed = Feed(prestart=2, CPU=2)
    feed.workers("w1", "w2")
    submit(feed, "a")
    assert feed.plan() == {}
    assert feed.last.start_elsewhere == {"e": 1} and feed.last.start_workers == 0
    assert feed.plan() == {} and feed.last.start_elsewhere == {}  # it is on its way
    start(feed, "w3", "other")
    assert feed.plan() == {}
    start(feed, "w4")
    assert feed.plan() == {"w4": ["a"]}
    feed.finish("w4", "a")
    feed.submit("plain")
    assert feed.plan() == {"w2": ["plain"]}
    submit(feed, "b")
    assert feed.plan() == {"w4": ["b"]}


def test_a_worker_of_an_environment_that_does_not_start_is_asked_for_again():
    feed = Feed(prestart=1, CPU=1)
    feed.workers("w1")
    submit(feed, "a")
    feed.plan()
    feed.scheduler.start_failed("e")
    feed.plan()
    assert feed.last.start_elsewhere == {"e": 1}


def test_those_idle_longest_are_recycled():
    feed = Feed(prestart=2, CPU=4)
    feed.workers("w1", "w2")
    for i in range(4):
        start(feed, f"e{i}", f"environment {i}")
    feed.plan()
    assert feed.last.stop_workers == ["e0", "e1"]
    assert set(feed.scheduler._staff.idle) == {"w1", "w2"}


def test_a_child_of_another_environment_does_not_run_on_top_of_its_parent():
    feed = Feed(prestart=2, CPU=1)
    feed.workers("w1")
    feed.submit("parent")
    feed.plan()
    submit(feed, "child")
    feed.block("w1", "child")
    assert feed.plan() == {}
    start(feed, "w2")
    assert feed.plan() == {"w2": ["child"]}


def test_the_engines_own_workers_are_counted_apart():
    feed = Feed(prestart=2, CPU=2)
    start(feed, "e0")
    submit(feed, "actor", CPU=1)
    feed.tasks["actor"].exclusive = True
    feed.plan()
    assert feed.last.start_workers == 2
