"""Linear regression with a parameter server: in every step all workers' gradients are averaged before it moves on."""

import numpy as np

import rlflow.engine as ray

WORKERS, STEPS, FEATURES, ROWS, RATE = 4, 40, 8, 256, 0.3


def true_weights():
    return np.arange(FEATURES, dtype=np.float64) - 3


@ray.remote
class ParameterServer:
    def __init__(self):
        self.weights = np.zeros(FEATURES)

    def apply(self, *gradients):
        self.weights = self.weights - RATE * np.mean(gradients, axis=0)
        return self.weights

    def get_weights(self):
        return self.weights


@ray.remote
class Worker:
    def __init__(self, seed):
        generator = np.random.default_rng(seed)
        self.inputs = generator.normal(size=(ROWS, FEATURES))
        self.targets = self.inputs @ true_weights()

    def gradient(self, weights):
        return self.inputs.T @ (self.inputs @ weights - self.targets) / ROWS


def main():
    server = ParameterServer.remote()
    workers = [Worker.remote(seed) for seed in range(WORKERS)]
    weights = server.get_weights.remote()
    for _ in range(STEPS):
        # Nothing is fetched here: the refs go from actor to actor.
        weights = server.apply.remote(*[worker.gradient.remote(weights) for worker in workers])
    return np.round(ray.get(weights), 3).tolist()


if __name__ == "__main__":
    ray.init()
    print(main())
