"""A pipeline of three stages that has at most a few items on their way: `wait` holds the producer back."""

import numpy as np

import rlflow.engine as ray

ITEMS, AT_ONCE = 30, 4


@ray.remote
def load(index):
    return np.full((50, 50), index)


@ray.remote
def transform(image):
    return image * 2 + 1


@ray.remote
def summarise(index, image):
    return index, int(image.sum())


def main():
    pending, results, most = [], {}, 0
    for index in range(ITEMS):
        if len(pending) >= AT_ONCE:
            ready, pending = ray.wait(pending, num_returns=1)
            results.update(ray.get(ready))
        pending.append(summarise.remote(index, transform.remote(load.remote(index))))
        most = max(most, len(pending))
    results.update(ray.get(pending))
    return {"most at once": most, "sums": [results[index] for index in range(ITEMS)]}


if __name__ == "__main__":
    ray.init()
    print(main())
