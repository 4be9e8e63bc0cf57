"""Sums many arrays by a tree of tasks: each adds two results, and no process ever holds all of them."""

import numpy as np

import rlflow.engine as ray

LEAVES, LENGTH = 16, 20_000


@ray.remote
def leaf(seed):
    return np.random.default_rng(seed).integers(0, 1000, LENGTH)


@ray.remote
def add(left, right):
    return left + right


def main():
    refs = [leaf.remote(seed) for seed in range(LEAVES)]
    levels = 0
    while len(refs) > 1:
        refs = [add.remote(refs[i], refs[i + 1]) for i in range(0, len(refs), 2)]
        levels += 1
    total = ray.get(refs[0])
    return {"levels": levels, "sum": int(total.sum()), "first": total[:4].tolist()}


if __name__ == "__main__":
    ray.init()
    print(main())
