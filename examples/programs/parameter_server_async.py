"""The same regression without a common step: whichever worker is ready first is served first, on weights that age."""

import numpy as np

import rlflow.engine as ray

WORKERS, UPDATES_EACH, FEATURES, ROWS, RATE = 3, 50, 8, 256, 0.15


def true_weights():
    return np.arange(FEATURES, dtype=np.float64) - 3


@ray.remote
class ParameterServer:
    def __init__(self):
        self.weights = np.zeros(FEATURES)
        self.updates = 0

    def apply(self, gradient):
        self.weights = self.weights - RATE * gradient
        self.updates += 1
        return self.weights

    def state(self):
        return self.updates, self.weights


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
    running = {worker.gradient.remote(np.zeros(FEATURES)): worker for worker in workers}
    left = dict.fromkeys(workers, UPDATES_EACH)
    while running:
        [ready], _ = ray.wait(list(running))
        worker = running.pop(ready)
        weights = server.apply.remote(ready)
        left[worker] -= 1
        if left[worker]:
            running[worker.gradient.remote(weights)] = worker
    updates, weights = ray.get(server.state.remote())
    # The order differs from run to run, and so do the last digits.
    return {"updates": updates, "close": bool(np.abs(weights - true_weights()).max() < 0.05)}


if __name__ == "__main__":
    ray.init()
    print(main())
