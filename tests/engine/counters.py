"""An actor for tests, and what helps to watch it."""

import gc
import time

from rlflow import engine


@engine.remote
class Counter:
    def __init__(self, start=0):
        self.value = start

    def add(self, n=1):
        self.value += n
        return self.value

    def read(self):
        return self.value

    def fail(self):
        self.value += 100
        raise ValueError("in the actor")

    def echo(self, *args, **kwargs):
        return args, kwargs

    @engine.method(num_returns=2)
    def pair(self):
        return self.value, -self.value

    def own_id(self):
        context = engine.get_runtime_context()
        return context.role, context.actor_id, context.task_id


@engine.remote
def add_through(handle, n):
    return engine.get(handle.add.remote(n))


def until(condition):
    """Waits for what the engine does in its own time; gives up loudly."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "did not happen within 30 s"
        gc.collect()
        time.sleep(0.005)


def name_is_free(name):
    try:
        engine.get_actor(name)
    except ValueError:
        return True
    return False
