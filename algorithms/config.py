"""The part of a config that every algorithm has."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

WRAPPERS = "rlflow:wrappers"
"""A key of environments' arguments that is no keyword: what is put around the environment."""


class WrapperConfig(BaseModel):
    """A wrapper's name; all other keys are its arguments."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field(description="a class of gymnasium.wrappers, or 'module:Class'")


class AlgorithmConfig(BaseModel):
    """Strict: unknown keys are errors, ``"3"`` is no number and ``True`` no int; ints pass as floats."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    env: str = Field(description="gymnasium id of the environment: 'CartPole-v1', 'my_module:MyEnv-v0'")
    env_kwargs: dict[str, Any] = Field(default={}, description="keyword arguments of the environment")
    wrappers: tuple[WrapperConfig, ...] = Field(
        default=(), strict=False,
        description="put around each environment, the first inside: a list of name (of gymnasium.wrappers, or "
        "'module:Class') and arguments",
    )
    seed: int = Field(default=0, ge=0, description="seed of everything random in the run")

    @property
    def env_arguments(self) -> dict[str, Any]:
        """All that an environment is made with: ``env_kwargs``, and the wrappers under :data:`WRAPPERS`."""
        wrappers = [wrapper.model_dump() for wrapper in self.wrappers]
        return {**self.env_kwargs, WRAPPERS: wrappers} if wrappers else self.env_kwargs


class RolloutConfig(AlgorithmConfig):
    """Of algorithms whose environments go on from one iteration to the next."""

    num_envs: int = Field(default=8, ge=1, description="environments stepped in parallel, over all groups")
    env_groups: int = Field(
        default=1, ge=1,
        description="rollout tasks an iteration; they, not the number of workers, fix the results",
    )

    episode_info: tuple[str, ...] = Field(
        default=(), strict=False,
        description="names of numbers that the environment gives in its info when an episode ends: metrics "
        "episode_<name>",
    )

    @model_validator(mode="after")
    def _groups_divide_envs(self) -> RolloutConfig:
        if self.num_envs % self.env_groups:
            raise ValueError(
                f"num_envs ({self.num_envs}) must be a multiple of env_groups ({self.env_groups}): "
                "every group has the same number of environments"
            )
        return self
