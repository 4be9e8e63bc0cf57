"""Graphs of tasks that nobody draws beforehand: Fibonacci by references, and a chain of matrices in its best order."""

from itertools import pairwise

import numpy as np

import rlflow.engine as ray

DIMENSIONS = [30, 35, 15, 5, 10, 20, 25]


@ray.remote
def add(a, b):
    return a + b


@ray.remote
def multiply(a, b):
    return a @ b


@ray.remote
def fibonacci(n):
    """Submits its own graph and gives back a reference to its end, without waiting for it."""
    a, b = ray.put(0), ray.put(1)
    for _ in range(n):
        a, b = b, add.remote(a, b)
    return [a]


def best_splits(dimensions):
    """Where to cut a product of matrices so that it takes the fewest multiplications."""
    count = len(dimensions) - 1
    cost = {(i, i): 0 for i in range(count)}
    split = {}
    for width in range(1, count):
        for i in range(count - width):
            j = i + width
            cost[i, j], split[i, j] = min(
                (cost[i, k] + cost[k + 1, j] + dimensions[i] * dimensions[k + 1] * dimensions[j + 1], k)
                for k in range(i, j)
            )
    return cost[0, count - 1], split


def product(matrices, split, i, j):
    if i == j:
        return matrices[i]
    k = split[i, j]
    return multiply.remote(product(matrices, split, i, k), product(matrices, split, k + 1, j))


def main():
    [end] = ray.get(fibonacci.remote(60))
    generator = np.random.default_rng(0)
    matrices = [ray.put(generator.integers(-2, 3, pair)) for pair in pairwise(DIMENSIONS)]
    cost, split = best_splits(DIMENSIONS)
    result = ray.get(product(matrices, split, 0, len(matrices) - 1))
    return {"fibonacci": ray.get(end), "multiplications": cost, "corner": int(result[0, 0]), "sum": int(result.sum())}


if __name__ == "__main__":
    ray.init()
    print(main())
