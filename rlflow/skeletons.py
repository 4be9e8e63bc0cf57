"""What ``rlflow new`` writes: files to begin from, which run as they are."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .errors import InputError

_ALGORITHM = '''\
"""A variant of PPO. Train it with: rlflow train NAME.yaml"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from rlflow.algorithms.config import AlgorithmConfig
from rlflow.algorithms.ppo import PPO, PPOConfig


class CLASSConfig(PPOConfig):
    """PPO's keys and your own; types and bounds are checked before a run starts."""

    indecision: float = Field(default=0.01, ge=0, description="how much the policy likes to stay undecided")


class CLASS(PPO):
    """Override one or two of loss, make_policy, collect and training_step; all else stays PPO's."""

    name: ClassVar[str] = "NAME"
    Config: ClassVar[type[AlgorithmConfig]] = CLASSConfig
    config: CLASSConfig

    def loss(self, outputs, batch):
        """What the learner minimises; runs in the learner's process, with torch."""
        total, statistics = super().loss(outputs, batch)
        entropy = outputs.distribution.entropy().mean()
        return total - self.config.indecision * entropy, statistics

    def training_step(self):
        """One iteration; what it returns is a line of metrics.jsonl."""
        metrics = super().training_step()
        metrics["steps_per_episode"] = metrics["env_steps"] / max(metrics.get("episodes", 0), 1)
        return metrics
'''

_ALGORITHM_CONFIG = '''\
algorithm: NAME:CLASS
env: CartPole-v1
seed: 0
stop: {env_steps: 50000}

num_envs: 8
rollout_length: 64
minibatch_size: 128
learning_rate: linear(1e-3, 0)
indecision: 0.01
'''

_ENV = '''\
"""A walk along a line, to be replaced by your own environment. Train on it with: rlflow train NAME.yaml"""

from __future__ import annotations

import gymnasium
import numpy as np


class CLASS(gymnasium.Env):
    """Starts somewhere on a line from -1 to 1; the goal is its middle. A step costs as much as one is away from it."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(self, step_size: float = 0.1, render_mode: str | None = None) -> None:
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(3)  # left, stay, right
        self.step_size = step_size
        self.render_mode = render_mode
        self._position = 0.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)  # seeds self.np_random: draw from nothing else, and runs can be repeated
        self._position = float(self.np_random.uniform(-1.0, 1.0))
        return self._observation(), {}

    def step(self, action):
        self._position = float(np.clip(self._position + (int(action) - 1) * self.step_size, -1.0, 1.0))
        reward = -abs(self._position)
        terminated = False  # true where an episode ends for good; time limits are register()'s business
        return self._observation(), reward, terminated, False, {}

    def render(self):
        """A picture [height, width, 3], for films: rlflow eval RUN --video"""
        picture = np.full((64, 256, 3), 255, np.uint8)
        column = int((self._position + 1.0) / 2.0 * 247)
        picture[16:48, column:column + 8] = (37, 99, 235)
        picture[:, 127:129] = (220, 38, 38)
        return picture

    def _observation(self):
        return np.array([self._position], np.float32)


gymnasium.register("CLASS-v0", entry_point=f"{__name__}:CLASS", max_episode_steps=50)
'''

_ENV_CONFIG = '''\
algorithm: ppo
env: NAME:CLASS-v0            # the module, then the id that it registers
env_kwargs: {step_size: 0.1}
seed: 0
stop: {env_steps: 30000}

num_envs: 8
rollout_length: 50
minibatch_size: 100
learning_rate: 1e-3
'''


def new_algorithm(name: str) -> list[Path]:
    """Writes ``name.py`` and ``name.yaml``; returns them.

    Raises:
        InputError: the name is none for a module, or a file is in the way.
    """
    return _write_module(name, _ALGORITHM, _ALGORITHM_CONFIG)


def new_env(name: str) -> list[Path]:
    """Writes ``name.py`` and ``name.yaml``; returns them.

    Raises:
        InputError: the name is none for a module, or a file is in the way.
    """
    return _write_module(name, _ENV, _ENV_CONFIG)


def new_config(name: str, algorithm: str, env: str) -> list[Path]:
    """Writes ``name.yaml`` with every key that there is, all but the necessary ones as comments.

    Raises:
        InputError: there is no such algorithm, or a file is in the way.
    """
    from rlflow.algorithms import resolve
    from rlflow.algorithms.errors import RLError

    try:
        model = resolve(algorithm).Config
    except RLError as error:
        raise InputError(str(error)) from None
    own = model.model_json_schema()["properties"]
    lines = [
        f"algorithm: {algorithm}",
        f"env: {env}",
        "seed: 0",
        "stop: {env_steps: 100000}",
        "evaluation: {episodes: 20}",
        "",
        "# Every other key, with its default; take away the # of those to change.",
    ]
    lines += [_commented(key, node) for key, node in own.items() if key not in ("env", "seed")]
    path = Path(name if name.endswith((".yaml", ".yml")) else f"{name}.yaml")
    return _write({path: "\n".join(lines) + "\n"})


def class_name(name: str) -> str:
    """``my_env`` as ``MyEnv``."""
    return "".join(part[:1].upper() + part[1:] for part in name.split("_"))


def _commented(key: str, node: Mapping[str, Any]) -> str:
    import json

    default = node.get("default")
    written = default if isinstance(default, str) else json.dumps(default)
    return f"# {key}: {written}".ljust(36) + f"  # {node.get('description', '')}"


def _write_module(name: str, program: str, config: str) -> list[Path]:
    name = name.removesuffix(".py")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise InputError(f"{name!r} cannot be a Python module: use small letters, digits and _, such as my_idea")
    if not Path(f"{name}.py").exists() and find_spec(name) is not None:
        raise InputError(f"a file of that name would hide the Python module {name!r}; take another name")
    values = {"CLASS": class_name(name), "NAME": name}

    def filled(text: str) -> str:
        return re.sub("CLASS|NAME", lambda match: values[match[0]], text)

    return _write({Path(f"{name}.py"): filled(program), Path(f"{name}.yaml"): filled(config)})


def _write(files: Mapping[Path, str]) -> list[Path]:
    for path in files:
        if path.exists():
            raise InputError(f"{path} exists already; take another name, or move it away")
    for path, text in files.items():
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}") from None
    return list(files)
