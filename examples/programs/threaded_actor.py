"""An actor with `max_concurrency` runs several calls at a time, in threads that share its state."""

import threading

import rlflow.engine as ray

NOT_INLINE = "its calls wait for each other, and inline they run one after the other"
THREADS, ROUNDS, CALLS = 4, 3, 200


@ray.remote(max_concurrency=THREADS)
class Shared:
    def __init__(self):
        self.barrier = threading.Barrier(THREADS)
        self.lock = threading.Lock()
        self.total = 0

    def meet(self):
        self.barrier.wait(timeout=60)  # returns when all threads are here
        return True

    def add(self, amount):
        with self.lock:
            self.total += amount
            return self.total


def main():
    shared = Shared.remote()
    met = [all(ray.get([shared.meet.remote() for _ in range(THREADS)])) for _ in range(ROUNDS)]
    totals = ray.get([shared.add.remote(1) for _ in range(CALLS)])
    return {"met": met, "every total once": sorted(totals) == list(range(1, CALLS + 1))}


if __name__ == "__main__":
    ray.init()
    print(main())
