"""A race: as soon as one runner is there, the others are cancelled, those that run and those that wait alike."""

import time

import rlflow.engine as ray

NOT_INLINE = "inline a task has ended when it was submitted, and some of these never end"
RUNNERS, WINNER = 5, 0


@ray.remote
def run(runner):
    while runner != WINNER:
        time.sleep(0.01)
    return runner


@ray.remote
def congratulate(runner):
    return f"well done, {runner}"


def outcome(ref):
    try:
        return ray.get(ref, timeout=60)
    except ray.exceptions.TaskCancelledError:
        return "cancelled"


def main():
    runners = [run.remote(runner) for runner in range(RUNNERS)]
    [first], others = ray.wait(runners, timeout=60)
    words = [congratulate.remote(first), congratulate.remote(others[0])]
    for ref in others:
        ray.cancel(ref)
    result = {"runners": [outcome(ref) for ref in runners], "winner": outcome(words[0])}
    try:
        ray.get(words[1], timeout=60)
    except ray.exceptions.RayError as error:
        result["after a cancelled one"] = isinstance(error, ray.exceptions.TaskCancelledError)
    ray.cancel(first)  # it has ended: nothing happens
    return result | {"later": outcome(first), "cpus work": outcome(congratulate.remote(9))}


if __name__ == "__main__":
    ray.init()
    print(main())
