"""What ``rlflow new`` writes trains as it is, and never over what is there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from rlflow.config_check import check_config
from rlflow.config_source import read_config_file
from rlflow.errors import InputError
from rlflow.skeletons import class_name, new_algorithm, new_config, new_env

if TYPE_CHECKING:
    from .conftest import Command

SHORT = ("stop.env_steps=600", "evaluation.episodes=1", "engine.num_cpus=1")


def test_a_new_algorithm_trains(rlflow: Command, workdir: Path) -> None:
    assert rlflow("new", "algorithm", "my_idea").stdout.splitlines()[-1] == "next rlflow train my_idea.yaml"
    done = rlflow("train", "my_idea.yaml", *SHORT, "name=run", "engine.backend=inline")
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load((workdir / "runs/run/config.yaml").read_text())["indecision"] == 0.01
    first = json.loads((workdir / "runs/run/metrics.jsonl").read_text().splitlines()[0])
    assert first["steps_per_episode"] > 0


def test_a_new_env_trains_on_workers_and_keeps_gymnasiums_rules(rlflow: Command, workdir: Path) -> None:
    assert rlflow("new", "env", "my_env").returncode == 0
    done = rlflow("train", "my_env.yaml", *SHORT, "name=run")
    assert done.returncode == 0, done.stderr
    assert "on my_env:MyEnv-v0" in done.stdout
    program = (
        "import gymnasium, warnings; from gymnasium.utils.env_checker import check_env; "
        "warnings.simplefilter('error'); "
        "check_env(gymnasium.make('my_env:MyEnv-v0', render_mode='rgb_array').unwrapped)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=workdir, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("algorithm", ["ppo", "es", "a3c"])
def test_a_new_config_is_right_as_it_is_and_with_every_key(workdir: Path, algorithm: str) -> None:
    [path] = new_config("mine", algorithm, "CartPole-v1")
    written = check_config(read_config_file(path)).as_mapping()
    bare = path.read_text().replace("\n# ", "\n").replace("Every other key", "# Every other key")
    path.write_text(bare)
    assert check_config(read_config_file(path)).as_mapping() == written


def test_nothing_is_written_over_or_hidden(workdir: Path) -> None:
    new_env("my_env")
    for refused, reason in (("my_env", "exists already"), ("gymnasium", "would hide"), ("My-Env", "small letters")):
        with pytest.raises(InputError, match=reason):
            new_algorithm(refused)
    with pytest.raises(InputError, match="did you mean 'ppo'"):
        new_config("other", "pppo", "CartPole-v1")
    assert class_name("my_own_env") == "MyOwnEnv"
