# docking.py
import gymnasium
import numpy as np


class Docking(gymnasium.Env):
    """A ship on a line, to be brought to rest at its middle. Seen: position and velocity; action: the thrust."""

    def __init__(self, mass=1.0):
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.mass = mass

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)  # makes self.np_random, the only source of randomness
        self.position, self.velocity = self.np_random.uniform(-1.0, 1.0), 0.0
        return self._observation(), {}

    def step(self, action):
        self.velocity += 0.1 * float(action[0]) / self.mass
        self.position += 0.1 * self.velocity
        reward = -(self.position**2) - 0.1 * self.velocity**2
        lost = abs(self.position) > 3.0  # ends the episode; running out of time is the time limit's part
        return self._observation(), reward - 20.0 * lost, lost, False, {}

    def _observation(self):
        return np.array([self.position, self.velocity], np.float32)


gymnasium.register("Docking-v0", entry_point=Docking, max_episode_steps=100)
