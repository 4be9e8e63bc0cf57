"""Random search on CartPole: rollouts as tasks that share one policy, the best of which is searched around again."""

import gymnasium
import numpy as np

import rlflow.engine as ray

ROUNDS, CANDIDATES, EPISODES = 2, 6, 2


@ray.remote
def episode_length(weights, seed):
    env = gymnasium.make("CartPole-v1")
    observation, _ = env.reset(seed=seed)
    length, done = 0, False
    while not done:
        observation, _, terminated, truncated, _ = env.step(int(observation @ weights > 0))
        length, done = length + 1, terminated or truncated
    env.close()
    return length


def main():
    generator = np.random.default_rng(0)
    best, best_score = np.zeros(4), 0.0
    history = []
    for _ in range(ROUNDS):
        candidates = [best + generator.normal(size=4) for _ in range(CANDIDATES)]
        refs = [ray.put(weights) for weights in candidates]
        lengths = ray.get([episode_length.remote(ref, seed) for ref in refs for seed in range(EPISODES)])
        scores = np.reshape(lengths, (CANDIDATES, EPISODES)).mean(axis=1)
        if scores.max() > best_score:
            best, best_score = candidates[int(scores.argmax())], float(scores.max())
        history.append(best_score)
    return {"best after each round": history}


if __name__ == "__main__":
    ray.init()
    print(main())
