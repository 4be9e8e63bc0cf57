"""Takes results as they become ready, and goes on submitting work that depends on what came."""

import rlflow.engine as ray

LIMIT = 60


@ray.remote
def collatz(number):
    """Where one chain of steps leads until it falls below its start or ends."""
    steps, at = 0, number
    while at != 1 and (steps == 0 or at >= number):
        at = at // 2 if at % 2 == 0 else 3 * at + 1
        steps += 1
    return number, at, steps


def main():
    known = {1: 0}
    below = {}
    pending = [collatz.remote(number) for number in range(2, LIMIT)]
    waits = 0
    while pending:
        ready, pending = ray.wait(pending, num_returns=min(5, len(pending)), timeout=60)
        waits += 1
        for number, at, steps in ray.get(ready):
            below[number] = (at, steps)
    for number in range(2, LIMIT):
        at, steps = below[number]
        known[number] = known[at] + steps
    longest = max(known, key=lambda number: (known[number], -number))
    return {"waited": waits, "longest from": longest, "steps": known[longest], "all steps": sum(known.values())}


if __name__ == "__main__":
    ray.init()
    print(main())
