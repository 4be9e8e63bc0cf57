"""Producers and consumers with a bounded queue between them: whoever is too fast waits."""

import rlflow.engine as ray
from rlflow.engine.util.queue import Empty, Queue

NOT_INLINE = "producers and consumers wait for each other, and inline they run one after the other"
PRODUCERS, CONSUMERS, ITEMS, ROOM = 3, 2, 20, 4


@ray.remote
def produce(queue, producer):
    for number in range(ITEMS):
        queue.put((producer, number))


@ray.remote
def consume(queue):
    taken = []
    while (item := queue.get()) is not None:
        taken.append(item)
    return taken


def main():
    queue = Queue(maxsize=ROOM)
    consumers = [consume.remote(queue) for _ in range(CONSUMERS)]
    ray.get([produce.remote(queue, producer) for producer in range(PRODUCERS)])
    for _ in consumers:
        queue.put(None)
    taken = ray.get(consumers)
    try:
        queue.get(block=False)
    except Empty:
        left = 0
    return {
        "items": sorted(tuple(item) for items in taken for item in items) == [
            (producer, number) for producer in range(PRODUCERS) for number in range(ITEMS)
        ],
        "in order for each": all(
            [n for p, n in items if p == producer] == sorted(n for p, n in items if p == producer)
            for items in taken for producer in range(PRODUCERS)
        ),
        "left": left,
    }


if __name__ == "__main__":
    ray.init()
    print(main())
