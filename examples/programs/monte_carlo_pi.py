"""Estimates π with tasks that throw darts, while an actor counts how far all of them are."""

import random

import rlflow.engine as ray

TASKS, DARTS, REPORT_EVERY = 8, 4000, 1000


@ray.remote
class Progress:
    def __init__(self):
        self.thrown = {}

    def report(self, task, thrown):
        self.thrown[task] = thrown

    def total(self):
        return sum(self.thrown.values())


@ray.remote
def throw(task, progress):
    generator = random.Random(task)
    inside = 0
    for dart in range(1, DARTS + 1):
        inside += generator.random() ** 2 + generator.random() ** 2 <= 1
        if dart % REPORT_EVERY == 0:
            progress.report.remote(task, dart)
    ray.get(progress.total.remote())  # calls keep their order: the reports have arrived when this is answered
    return inside


def main():
    progress = Progress.remote()
    inside = sum(ray.get([throw.remote(task, progress) for task in range(TASKS)]))
    return {"thrown": ray.get(progress.total.remote()), "pi": round(4 * inside / (TASKS * DARTS), 6)}


if __name__ == "__main__":
    ray.init()
    print(main())
