# a2c.py
import time

from pydantic import Field

import rlflow.engine as engine
from rlflow.algorithms.actor_critic import ActorCriticAlgorithm, ActorCriticConfig
from rlflow.algorithms.advantages import flatten
from rlflow.algorithms.envs import spaces_of
from rlflow.algorithms.episodes import EpisodeLog
from rlflow.algorithms.evaluation import TrainedPolicy
from rlflow.algorithms.rollout import RolloutSpec, initial_state, rollout
from rlflow.algorithms.seeding import Role, generator
from rlflow.algorithms.states import pack_rollout_state, unpack_groups


class A2CConfig(ActorCriticConfig):
    """Keys of the YAML. Those of environments and networks are inherited."""

    rollout_length: int = Field(default=8, ge=1, description="T, steps of each environment an iteration")
    gamma: float = Field(default=0.99, ge=0, le=1, description="discount γ")
    gae_lambda: float = Field(default=1.0, ge=0, le=1, description="λ of generalised advantage estimation")
    learning_rate: float = Field(default=1e-3, gt=0, description="Adam's step size")
    entropy_coef: float = Field(default=0.01, ge=0, description="weight of the entropy bonus")


class A2C(ActorCriticAlgorithm):
    """Advantage actor-critic, synchronous: all groups play T steps, then there is one gradient step."""

    name = "a2c"
    Config = A2CConfig

    def __init__(self, config, total_env_steps):
        super().__init__(config, total_env_steps)
        self.episodes = EpisodeLog()

    def loss(self, outputs, batch):
        """−log π(a|s) · A + ½ (V − R)² − β · entropy. ``batch``: tensors [N] by name."""
        policy_loss = -(outputs.distribution.log_prob(batch["actions"]) * batch["advantages"]).mean()
        value_loss = (outputs.values - batch["returns"]).square().mean()
        entropy = outputs.distribution.entropy().mean()
        total = policy_loss + 0.5 * value_loss - self.config.entropy_coef * entropy
        return total, {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}

    def setup(self):
        c = self.config
        self.policy = self.make_policy(*spaces_of(c.env, c.env_arguments))
        self.learner = self.policy.learner(self.policy.initial_parameters(generator(c.seed, Role.WEIGHTS)))
        self.rollout = engine.remote(num_returns=3)(rollout)
        self.start([initial_state(group) for group in range(c.env_groups)])

    def start(self, states):
        c = self.config
        run = f"a2c-{time.time_ns()}"  # names the environments that workers keep: never those of another run
        envs = c.num_envs // c.env_groups
        self.spec = engine.put(RolloutSpec(run, c.env, c.env_arguments, c.seed, envs, c.rollout_length, self.policy))
        self.states = [engine.put(state) for state in states]

    def training_step(self):
        import torch

        c, began = self.config, time.perf_counter()
        weights, trajectories, reports = engine.put(self.learner.parameters), [], []
        for group, state in enumerate(self.states):  # one task a group; all run at once
            near = engine.NearObject(state)  # the worker that made the state still has its environments
            trajectory, self.states[group], report = self.rollout.options(scheduling_strategy=near).remote(
                self.spec, weights, state
            )
            trajectories.append(trajectory)
            reports.append(report)
        data = flatten(engine.get(trajectories), c.gamma, c.gae_lambda)
        batch = {name: torch.from_numpy(data[name]) for name in ("actions", "advantages", "returns")}
        statistics, _ = self.learner.step(data["observations"], batch, self.loss, c.learning_rate, max_grad_norm=0.5)

        reports = engine.get(reports)
        steps = sum(report.steps for report in reports)
        for report in reports:
            self.episodes.add(report.episode_returns, report.episode_lengths)
        self.env_steps += steps
        self.iteration += 1
        return {
            "env_steps": self.env_steps, "iteration": self.iteration, **self.episodes.metrics(),
            "steps_per_second": steps / (time.perf_counter() - began),
            **{name: value.item() for name, value in statistics.items()},
        }

    def trained_policy(self):
        return TrainedPolicy(self.policy, self.learner.parameters.copy(), None)

    def state(self):
        return {
            "algorithm": self.name, "env_steps": self.env_steps, "iteration": self.iteration,
            "episodes": self.episodes.state(), "learner": self.learner.state(),
            "groups": [pack_rollout_state(state) for state in engine.get(self.states)],
        }

    def load_state(self, state):
        groups = unpack_groups(state, self.name, self.config.env_groups)
        self.env_steps, self.iteration = state["env_steps"], state["iteration"]
        self.episodes.load_state(state["episodes"])
        self.learner.load_state(state["learner"])
        self.start(groups)
