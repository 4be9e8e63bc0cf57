"""The scheduler against a model of workers: random events, messages that cross, and nothing lost in the end."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from scheduling import assert_books_balance
from worker_model import MAX_RETRIES, Cluster

CAPACITY = st.fixed_dictionaries({"CPU": st.integers(1, 4), "GPU": st.integers(0, 2), "slot": st.integers(0, 3)})
DEMAND = st.fixed_dictionaries(
    {}, optional={"CPU": st.integers(1, 3), "GPU": st.integers(1, 2), "slot": st.integers(1, 3)}
)
SUBMISSIONS = st.lists(
    st.tuples(
        DEMAND, st.sampled_from(["short", "long"]), st.sampled_from([False, False, False, True]),
        st.sampled_from(["", "", "w3", "w9"]), st.integers(1, 5),
    ),
    min_size=1, max_size=5,
)
CHOICES = st.lists(st.integers(0, 2**32 - 1), min_size=40, max_size=100)


class SchedulerMachine(RuleBasedStateMachine):
    cluster: Cluster

    @initialize(capacity=CAPACITY, prestart=st.integers(0, 3), tasks=SUBMISSIONS, choices=CHOICES)
    def begin(self, capacity, prestart, tasks, choices):
        self.cluster = Cluster(capacity, prestart)
        self.submit(tasks)
        self.things_take_their_course(choices)

    @rule(tasks=SUBMISSIONS)
    def submit(self, tasks):
        for demand, function, exclusive, prefer, copies in tasks:
            for _ in range(copies):
                self.cluster.submit(demand, function, exclusive, prefer)

    @rule(choices=CHOICES)
    def things_take_their_course(self, choices):
        for choice in choices:
            self.cluster.step(choice)

    @precondition(lambda self: self.cluster.starting)
    @rule()
    def worker_does_not_start(self):
        self.cluster.starting -= 1
        self.cluster.scheduler.start_failed()

    @invariant()
    def books_balance(self):
        assert_books_balance(self.cluster.scheduler)

    def teardown(self):
        if not hasattr(self, "cluster"):
            return
        self.cluster.run_until_quiescent()
        self.cluster.assert_all_is_done()
        for worker in self.cluster.workers.values():
            if worker.actor is not None:
                worker.dead = True
                worker.actor.task.attempt = MAX_RETRIES
        self.cluster.run_until_quiescent(actors_end=True)
        assert not self.cluster.at_node and not self.cluster.handed
        assert self.cluster.scheduler.free == self.cluster.scheduler.capacity


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=100, stateful_step_count=6, deadline=None)
