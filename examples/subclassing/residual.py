# residual.py
import torch
from torch import nn

from rlflow.algorithms.policies.torch_actor_critic import TorchActorCritic
from rlflow.algorithms.ppo import PPO


class ResidualNetwork(nn.Module):
    """One trunk with a residual block for policy and value."""

    def __init__(self, layout, num_outputs, width=64):
        super().__init__()
        self.first = nn.Linear(layout.feature_size, width)
        self.block = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.policy = nn.Linear(width, num_outputs)
        self.value = nn.Linear(width, 1)
        nn.init.orthogonal_(self.policy.weight, 0.01)  # nearly uniform actions to begin with

    def forward(self, observations):
        """[N, feature_size] → outputs of the action distribution [N, num_outputs], values [N]."""
        hidden = torch.tanh(self.first(observations))
        hidden = hidden + self.block(hidden)
        return self.policy(hidden), self.value(hidden).squeeze(1)


class ResidualPPO(PPO):
    name = "residual"

    def make_policy(self, observation_space, action_space):
        return TorchActorCritic(observation_space, action_space, ResidualNetwork)
