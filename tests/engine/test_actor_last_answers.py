"""What an actor answered just before it died, and had not logged at the node yet, is as good as any other answer."""

import os
import signal
import threading
import time

import numpy as np
import pytest

from rlflow import engine


@engine.remote
class Doomed:
    def answer(self, value, seconds):
        """Returns, and kills its process ``seconds`` later."""

        def die():
            time.sleep(seconds)
            os.kill(os.getpid(), signal.SIGKILL)

        threading.Thread(target=die, daemon=True).start()
        return value


@engine.remote
def double(value):
    return 2 * value


@pytest.fixture
def running():
    engine.init(num_cpus=2)
    yield
    engine.shutdown()


@pytest.mark.usefixtures("running")
def test_tasks_get_the_last_answers_of_a_dead_actor():
    for i in range(12):
        answer = Doomed.remote().answer.remote(i, 0.0002 * i)
        dependent = double.remote(answer)
        try:
            value = engine.get(answer, timeout=30)
        except engine.exceptions.ActorDiedError:  # it died before the answer was out
            with pytest.raises(engine.exceptions.ActorDiedError):
                engine.get(dependent, timeout=30)
        else:
            assert value == i
            assert engine.get(dependent, timeout=30) == 2 * i


@pytest.mark.usefixtures("running")
def test_large_last_answers_outlive_the_actor():
    for i in range(8):
        answer = Doomed.remote().answer.remote(np.full(50_000, i), 0.0003 * i)
        try:
            engine.wait([answer], timeout=30)
            value = engine.get(answer, timeout=30)
        except engine.exceptions.ActorDiedError:
            continue
        assert (value == i).all()
