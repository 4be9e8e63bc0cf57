"""Large arrays in shared memory: stored once, read by many without a copy, passed on inside of data."""

import numpy as np

import rlflow.engine as ray

ROWS, COLUMNS = 1000, 500


@ray.remote
def column_sum(matrix, column):
    return int(matrix[:, column].sum())


@ray.remote
def read_only(matrix):
    try:
        matrix[0, 0] = 1
    except ValueError:
        return True
    return False


@ray.remote
def scaled(matrix, factor):
    return matrix * factor


@ray.remote
def shapes(boxes):
    """Refs inside of data stay refs, to be fetched or passed on."""
    return [ray.get(box["matrix"]).shape for box in boxes], ray.get(scaled.remote(boxes[0]["matrix"], 3))[0, 1]


def main():
    matrix = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
    ref = ray.put(matrix)
    halves = [scaled.remote(ref, factor) for factor in (1, 2)]
    found, entry = ray.get(shapes.remote([{"matrix": ref}, {"matrix": halves[1]}]))
    mine = ray.get(halves[1])
    return {
        "sums": ray.get([column_sum.remote(ref, column) for column in (0, 250, 499)]),
        "read-only in tasks": ray.get(read_only.remote(ref)),
        "read-only here": not mine.flags.writeable,
        "same": bool((mine == 2 * matrix).all()),
        "shapes": [list(shape) for shape in found],
        "entry": int(entry),
    }


if __name__ == "__main__":
    ray.init()
    print(main())
