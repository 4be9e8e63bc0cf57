"""Map-reduce: mappers count the words of their documents by reducer, reducers add up what all mappers have for them."""

import zlib
from collections import Counter

import rlflow.engine as ray

REDUCERS = 3
DOCUMENTS = [
    "the agent acts and the world answers",
    "the world is the state and the state is hidden",
    "a reward is an answer and an answer is a state",
    "no agent is hidden from the world",
    "and the reward answers the act",
]


@ray.remote(num_returns=REDUCERS)
def map_document(text):
    parts = [Counter() for _ in range(REDUCERS)]
    for word in text.split():
        parts[zlib.crc32(word.encode()) % REDUCERS][word] += 1
    return parts


@ray.remote
def reduce_parts(*parts):
    total = Counter()
    for part in parts:
        total.update(part)
    return total


def main():
    mapped = [map_document.remote(text) for text in DOCUMENTS]
    reduced = [reduce_parts.remote(*parts) for parts in zip(*mapped, strict=True)]  # column i is what reducer i gets
    total = Counter()
    for part in ray.get(reduced):
        total.update(part)
    return sorted(total.items(), key=lambda item: (-item[1], item[0]))[:8]


if __name__ == "__main__":
    ray.init()
    print(main())
