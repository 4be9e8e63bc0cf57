# kl_penalty.py
from pydantic import Field

from rlflow.algorithms.ppo import PPO, PPOConfig


class KLPenaltyConfig(PPOConfig):
    kl_coef: float = Field(default=1.0, ge=0, description="weight of the distance from the policy that acted")


class KLPenaltyPPO(PPO):
    """PPO with a penalty in place of the clipping (Schulman et al. 2017, equation 8, with a constant β)."""

    name = "kl_penalty"
    Config = KLPenaltyConfig

    def loss(self, outputs, batch):
        log_ratio = outputs.distribution.log_prob(batch.actions) - batch.old_log_probs  # [N]
        ratio = log_ratio.exp()
        surrogate = (ratio * batch.advantages).mean()
        kl = (ratio - 1.0 - log_ratio).mean()  # an estimate of it that is never negative
        value_loss = (outputs.values - batch.returns).square().mean()
        total = self.config.value_coef * value_loss - surrogate + self.config.kl_coef * kl
        return total, {"policy_loss": -surrogate.detach(), "value_loss": value_loss.detach(), "kl": kl.detach()}
