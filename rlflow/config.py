"""The keys of a config that concern the run; the algorithm's own keys stand beside them in the same file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StopConfig(_Section):
    """When training ends: at whichever comes first; schedules run over ``env_steps``."""

    env_steps: PositiveInt = Field(
        description="stop once this many environment steps were taken"
    )
    minutes: PositiveFloat | None = Field(
        default=None, description="stop once so much time was spent training, also before a resumption; null: never"
    )
    episode_return: float | None = Field(
        default=None, description="stop once the mean of the last 100 training episodes reaches this; null: never"
    )


class EvaluationConfig(_Section):
    """Whole episodes, at the end of the run and in between."""

    episodes: NonNegativeInt = Field(default=20, description="episodes to play; 0 leaves the evaluation out")
    every_env_steps: PositiveInt | None = Field(
        default=None, description="also evaluate during training, after so many steps; null: only at the end"
    )
    seed: NonNegativeInt = Field(default=10_000, description="seed of the evaluation environments")

    @model_validator(mode="after")
    def _episodes_to_play(self) -> EvaluationConfig:
        if self.every_env_steps is not None and not self.episodes:
            raise ValueError("every_env_steps is set and episodes is 0: there is nothing to play")
        return self


class CheckpointConfig(_Section):
    """When the training state is saved, beside the checkpoint that every run ends with."""

    every_env_steps: PositiveInt | None = Field(default=50_000, description="null: only at the end")
    keep: PositiveInt = Field(default=3, description="how many of the newest checkpoints stay on disk, beside the best")


class EngineConfig(_Section):
    """The engine that rollouts and learner run on."""

    backend: Literal["local", "inline"] = Field(
        default="local",
        description="'local': worker processes; 'inline': everything in this process, for debuggers",
    )
    num_cpus: PositiveInt | None = Field(default=None, description="CPUs to use; null: all of this machine")
    store_limit: PositiveInt | None = Field(
        default=None, description="bytes of task history to keep, of which the oldest goes first; null: 1 GiB"
    )
    object_store_memory: PositiveInt | None = Field(
        default=None, description="bytes of shared memory for large objects; null: 30 % of memory"
    )


RunName = Annotated[str, Field(pattern=r"^[^./\\\x00-\x1f][^/\\\x00-\x1f]*$", min_length=1, max_length=200)]


class RunConfig(_Section):
    """Everything about a run that is not the algorithm's business."""

    algorithm: str = Field(description="a name such as 'ppo', or 'module:Class' for your own")
    name: RunName | None = Field(
        default=None, description="the run's folder; null: made from algorithm, env, seed, time"
    )
    runs_dir: str = Field(default="runs", min_length=1, description="folder that holds the runs")
    stop: StopConfig = Field(description="when training ends")
    evaluation: EvaluationConfig = Field(default=EvaluationConfig(), description="the evaluation at the end")
    checkpoint: CheckpointConfig = Field(default=CheckpointConfig(), description="when state is saved")
    callbacks: tuple[str | dict[str, dict[str, Any]], ...] = Field(
        default=(), description="listeners to the run: 'module:Class', or {'module:Class': {argument: value}}"
    )
    trackers: tuple[Literal["tensorboard", "wandb"], ...] | None = Field(
        default=None, description="where metrics are sent as well; null: tensorboard, if it is installed"
    )
    engine: EngineConfig = Field(default=EngineConfig(), description="what the run computes on")
