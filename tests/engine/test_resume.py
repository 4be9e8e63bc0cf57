"""Who has what when a node is started anew, out of reports: decisions only, no process."""

import msgspec

from rlflow.engine import messages as m
from rlflow.engine.messages import Assignment, Report, Running
from rlflow.engine.node.resume import RollCall, standing


def task(name):
    return name.encode().ljust(14, b".")


def spec(name, owner="driver"):
    recipe = m.Recipe(m.TASK, b"f", owner, 1, {"CPU": 1}, 3, name)
    return m.Spec(task(name), None, [], [], "", 0, 0.0, m.encode(recipe))


def assignment(name, attempt=0):
    return Assignment(msgspec.Raw(m.encode(spec(name))), attempt, [])


def report(unfinished=(), running=(), queued=(), role="worker", following=0):
    return Report(role, 1, [task(name) for name in unfinished], 0, following, list(running), list(queued))


def put_together(
    reports, recorded=(), ended=(), finished=None, died_in=None, owners=None, orphans=(), attempts=None
):
    specs = {task(name): spec(name, (owners or {}).get(name, "driver")) for name in recorded}
    done = {task(name): 0 for name in ended}
    counted = {task(name): number for name, number in (attempts or {}).items()}
    return standing(
        reports, finished or {}, died_in or {}, [task(name) for name in orphans],
        lambda task_id: counted.get(task_id, 0), specs.get, lambda task_id: done.get(task_id, -1),
    )


def names(parts):
    return [part.task.rstrip(b".").decode() for part in parts]


def test_what_a_worker_has_stays_there():
    result = put_together({
        "driver": report(["runs", "queued", "lost"], role="driver"),
        "w1": report(running=[Running(assignment("runs"))], queued=[assignment("queued")]),
    }, recorded=["runs", "queued", "lost"])
    assert names(result.held["w1"]) == ["runs", "queued"]
    assert [part.begun for part in result.held["w1"]] == [True, False]
    assert result.lost == [task("lost")]
    assert not result.untold and not result.adopted


def test_what_has_ended_is_told_again_and_not_run():
    result = put_together(
        {"driver": report(["ended"], role="driver"), "w1": report(queued=[assignment("ended")])},
        recorded=["ended"], ended=["ended"],
    )
    assert result.untold == [("driver", task("ended"))]
    assert not result.lost and not result.held["w1"]


def test_what_runs_again_because_it_was_lost_goes_on():
    result = put_together(
        {"driver": report(role="driver"), "w1": report(running=[Running(assignment("lost", attempt=1))])},
        recorded=["lost"], ended=["lost"],
    )
    assert names(result.held["w1"]) == ["lost"]
    assert not result.lost and not result.untold


def test_what_was_never_recorded_comes_with_the_frames_of_its_owner():
    assert not put_together({"driver": report(["unheard of"], role="driver")}).lost


def test_a_report_on_its_way_is_as_good_as_the_task():
    result = put_together(
        {"driver": report(["done"], role="driver"), "w1": report()}, recorded=["done"],
        finished={"w1": [(task("done"), 2)]},
    )
    assert [(part.task, part.attempt) for part in result.held["w1"]] == [(task("done"), 2)]
    assert not result.lost


def test_the_latest_attempt_counts():
    result = put_together({
        "driver": report(["twice"], role="driver"),
        "w1": report(running=[Running(assignment("twice", 0))]),
        "w2": report(running=[Running(assignment("twice", 1))]),
    }, recorded=["twice"])
    assert not result.held["w1"]
    assert names(result.held["w2"]) == ["twice"]


def test_what_speaks_of_an_older_attempt_is_out_of_date():
    result = put_together({
        "driver": report(["again", "there"], role="driver"),
        "w1": report(running=[Running(assignment("again", 0))]),
        "w2": report(running=[Running(assignment("there", 1))]),
    }, recorded=["again", "there"], finished={"w1": [(task("again"), 0)]}, attempts={"again": 1, "there": 1})
    assert names(result.held["w2"]) == ["there"] and not result.held["w1"]
    assert result.lost == [task("again")]


def test_what_a_dead_worker_had_reported_counts():
    result = put_together(
        {"driver": report(["done", "last"], role="driver")}, recorded=["done", "last"],
        finished={"w1": [(task("done"), 0)]}, died_in={"w1": task("last")}, attempts={"last": 2},
    )
    assert [(part.task, part.attempt) for part in result.held["w1"]] == [(task("done"), 0), (task("last"), 2)]
    assert not result.lost


def test_tasks_whose_owner_died_are_not_forgotten():
    result = put_together(
        {"driver": report([], role="driver"), "w1": report(running=[Running(assignment("runs"))])},
        recorded=["runs", "queued", "ended"], ended=["ended"], orphans=["runs", "queued", "ended", "unheard of"],
    )
    assert names(result.held["w1"]) == ["runs"]
    assert result.lost == [task("queued")]


def test_a_dead_worker_has_the_task_that_it_was_in():
    result = put_together(
        {"driver": report(["runs", "queued"], role="driver")}, recorded=["runs", "queued"], died_in={"w1": task("runs")}
    )
    assert names(result.held["w1"]) == ["runs"]
    assert result.lost == [task("queued")]


def test_tasks_of_a_parent_that_runs_again_have_a_new_owner():
    result = put_together(
        {"w2": report(["child", "other"]), "w1": report(running=[Running(assignment("child"))])},
        recorded=["child", "other"], owners={"child": "w0", "other": "w0"},
    )
    assert sorted(result.adopted) == [("w2", task("child")), ("w2", task("other"))]
    assert result.lost == [task("other")]


def test_the_roll_is_called_until_all_have_reported_or_ended_and_their_older_frames_are_there():
    calls = RollCall(["driver", "w1", "w2"])
    arrived = {"driver": 2, "w1": 2, "w2": 0}

    def complete():
        return calls.complete(arrived.__getitem__)

    calls.heard("driver", report(following=3, role="driver"))
    calls.heard("w1", report(following=2))
    assert calls.missing() == ["w2"] and not complete()
    calls.heard("w2", report(following=2))
    assert not complete()  # older frames of driver and w2 are on their way
    arrived["driver"] = 3
    assert not complete()
    calls.ended("w2")  # the rest will not come
    assert complete()


def test_who_ends_without_a_report_is_not_waited_for():
    calls = RollCall(["driver", "w1"])
    calls.heard("driver", report(role="driver"))
    calls.ended("w1")
    assert calls.complete(lambda process: 0)
