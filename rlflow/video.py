"""Films of a policy's episodes, as MP4, on machines without a screen.

Frames go from the environment to the encoder one by one, so that a long episode takes no memory. Gymnasium's
``RecordVideo`` keeps all of them, and needs moviepy, which does not go with current versions of Pillow.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import InputError

if TYPE_CHECKING:
    from rlflow.algorithms.base import TrainedPolicy
    from rlflow.algorithms.envs import VectorStepper

SLOWEST, USUAL = 1, 30
"""Frames a second: at least, and where an environment does not say."""


def film_episode(
    path: Path, env: str, env_kwargs: Mapping[str, Any], policy: TrainedPolicy, seed: int, number: int,
    deterministic: bool = True,
) -> float:
    """Plays one episode and writes it to ``path``; returns its return.

    Args:
        path: the MP4 to write.
        env, env_kwargs: as in a config.
        policy: what acts.
        seed: of the films of a run.
        number: of the episode among them.
        deterministic: the most likely actions, or drawn ones.

    Raises:
        InputError: imageio or what the environment draws with is missing, or it cannot draw itself as an array.
    """
    try:
        import imageio.v2 as imageio
        import imageio_ffmpeg  # noqa: F401 - imageio finds its encoder by itself, and says less when it is missing
    except ImportError:
        raise InputError("filming needs imageio and ffmpeg: pip install 'rlflow[video]'") from None
    from rlflow.algorithms.envs import check_env
    from rlflow.algorithms.errors import EnvStepError
    from rlflow.algorithms.evaluation import play_episodes

    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame would look for a screen
    check_env(env)
    writer: Any = None

    def take_frame(stepper: VectorStepper) -> None:
        nonlocal writer
        if writer is None:
            frames_per_second = max(int(stepper.env.metadata.get("render_fps") or USUAL), SLOWEST)
            path.parent.mkdir(parents=True, exist_ok=True)
            # macro_block_size 1 keeps the size of frames, but encoders want even ones: see _even.
            writer = imageio.get_writer(path, fps=frames_per_second, macro_block_size=1)
        frame = np.asarray((stepper.env.render() or [None])[0])
        if frame.ndim != 3:
            raise InputError(f"{env} gave no picture to film; its render mode 'rgb_array' must give arrays [H, W, 3]")
        writer.append_data(_even(frame))

    try:
        returns, _ = play_episodes(
            env, {**env_kwargs, "render_mode": "rgb_array"}, policy.policy, policy.weights, policy.moments, 1, seed,
            number, deterministic, watch=take_frame,
        )
    except EnvStepError as error:
        reason = (error.trace.strip().splitlines() or ["it could not be made"])[-1]
        raise InputError(f"{env} cannot be filmed: {reason}") from None
    finally:
        if writer is not None:
            writer.close()
    return returns[0]


def _even(frame: np.ndarray) -> np.ndarray:
    """[H, W, 3] without an odd last row or column."""
    return frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2]
