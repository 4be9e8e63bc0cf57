"""Quicksort by tasks that submit tasks and wait for them, deeper than there are CPUs."""

import random

import rlflow.engine as ray

LENGTH, SMALL = 600, 50


@ray.remote
def quicksort(values):
    if len(values) <= SMALL:
        return sorted(values)
    pivot = values[len(values) // 2]
    below = quicksort.remote([value for value in values if value < pivot])
    above = quicksort.remote([value for value in values if value > pivot])
    equal = [value for value in values if value == pivot]
    return ray.get(below) + equal + ray.get(above)


def main():
    values = [random.Random(0).randrange(10**6) for _ in range(3)]  # three equal ones, for `equal`
    generator = random.Random(1)
    values += [generator.randrange(10**6) for _ in range(LENGTH)]
    result = ray.get(quicksort.remote(values))
    return {"sorted": result == sorted(values), "length": len(result), "ends": [result[0], result[-1]]}


if __name__ == "__main__":
    ray.init()
    print(main())
