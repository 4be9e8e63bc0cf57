"""Errors of tasks and actors: by class, along dependencies, beside results that are fine, and in time."""

import time

import rlflow.engine as ray


class NoSuchLevel(Exception):
    def __init__(self, level):
        super().__init__(f"no level {level}")
        self.level = level


@ray.remote
def load(level):
    if level > 2:
        raise NoSuchLevel(level)
    return f"level {level}"


@ray.remote
def play(level):
    return f"played {level}"


@ray.remote
def slow(seconds):
    time.sleep(seconds)
    return "slept"


@ray.remote
class Door:
    def __init__(self, code):
        self.code = code
        self.tries = 0

    def open(self, code):
        self.tries += 1
        if code != self.code:
            raise PermissionError(f"wrong code, try {self.tries}")
        return f"open after {self.tries}"


def outcome(ref, timeout=60):
    try:
        return ray.get(ref, timeout=timeout)
    except NoSuchLevel as error:
        return f"NoSuchLevel, {type(error.cause).__name__}: {error.cause.level}"
    except PermissionError as error:
        assert isinstance(error, ray.exceptions.RayTaskError)
        return f"PermissionError: {error.cause}"


def main():
    levels = [load.remote(level) for level in (1, 2, 3)]
    door = Door.remote(42)
    result = {
        "one of three": [outcome(level) for level in levels],
        "along dependencies": [outcome(play.remote(level)) for level in levels],
        "an actor lives on": [outcome(door.open.remote(code)) for code in (1, 2, 42)],
    }
    ready, pending = ray.wait(levels, num_returns=3, timeout=60)
    result["failed is ready, too"] = [len(ready), len(pending)]
    try:
        ray.get(levels)
    except NoSuchLevel:
        result["get of all"] = "NoSuchLevel"
    result["in time"] = outcome(slow.remote(0.01))
    return result


if __name__ == "__main__":
    ray.init()
    print(main())
