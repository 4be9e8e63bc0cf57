"""Processes that die in the middle: tasks are run again, actors are made again, and what cannot be is an error."""

import os
import tempfile
from pathlib import Path

import rlflow.engine as ray

NOT_INLINE = "a crash of its worker would end the program"


@ray.remote
def dies_at_first(folder, number):
    marker = Path(folder, str(number))
    if not marker.exists():
        marker.touch()
        os._exit(1)
    return number * number


@ray.remote(max_retries=0)
def dies():
    os._exit(1)


@ray.remote
def total(values):
    return sum(ray.get(values))


@ray.remote(max_restarts=1)
class Fragile:
    def __init__(self):
        self.calls = 0

    def call(self):
        self.calls += 1
        return self.calls

    def die(self):
        os._exit(1)


def call_until_back(actor):
    while True:
        try:
            return ray.get(actor.call.remote())
        except ray.exceptions.ActorUnavailableError:
            continue  # it restarts


def main():
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        squares = [dies_at_first.remote(folder, number) for number in range(3)]
        result["run again"] = ray.get(squares)
        result["used by others"] = ray.get(total.remote(squares))
    try:
        ray.get(dies.remote())
    except ray.exceptions.WorkerCrashedError:
        result["without retries"] = "WorkerCrashedError"
    actor = Fragile.remote()
    result["calls"] = ray.get([actor.call.remote() for _ in range(3)])
    try:
        ray.get(actor.die.remote())
    except ray.exceptions.RayActorError:
        result["the call that killed it"] = "RayActorError"
    result["calls of the new one"] = call_until_back(actor)
    actor.die.remote()
    try:
        while True:
            call_until_back(actor)
    except ray.exceptions.ActorDiedError:
        result["no restart left"] = "ActorDiedError"
    return result


if __name__ == "__main__":
    ray.init()
    print(main())
