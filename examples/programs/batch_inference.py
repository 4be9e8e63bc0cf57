"""Batches through replicas of a model that share one copy of its weights in memory."""

from itertools import pairwise

import numpy as np

import rlflow.engine as ray

REPLICAS, BATCHES, BATCH = 2, 12, 32
SIZES = (16, 64, 4)


@ray.remote
class Model:
    def __init__(self, weights):
        self.first, self.second = weights

    @ray.method(num_returns=2)
    def predict(self, batch):
        scores = np.maximum(batch @ self.first, 0) @ self.second
        return scores.argmax(axis=1), len(batch)


def main():
    generator = np.random.default_rng(0)
    weights = ray.put([generator.integers(-3, 4, shape) for shape in pairwise(SIZES)])
    models = [Model.remote(weights) for _ in range(REPLICAS)]
    batches = [generator.integers(-5, 6, (BATCH, SIZES[0])) for _ in range(BATCHES)]
    answers = [models[i % REPLICAS].predict.remote(batch) for i, batch in enumerate(batches)]
    classes = np.concatenate(ray.get([classes for classes, _ in answers]))
    rows = sum(ray.get([rows for _, rows in answers]))
    return {"rows": rows, "of each class": np.bincount(classes, minlength=SIZES[-1]).tolist()}


if __name__ == "__main__":
    ray.init()
    print(main())
