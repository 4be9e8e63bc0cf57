"""Several runs in one file, and values that refer to others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlflow.config_check import CheckedConfig, check_config
from rlflow.config_source import ConfigError, apply_overrides, read_config_file
from rlflow.errors import InputError
from rlflow.planning import plan_runs

SEVERAL = """\
default:
  algorithm: ppo
  env: CartPole-v1
  stop: {env_steps: 1000}
  policy_hidden: [8, 8]
  engine:
    backend: inline
    num_cpus: 1
runs:
  slow:
    lr: 1e-4
  fast:
    learning_rate: 1e-2
    stop: {env_steps: 500, minutes: 1}
    policy_hidden: [16]
    engine: {num_cpus: 2}
    name: quick
  plain:
"""


@pytest.fixture(autouse=True)
def _in_workdir(workdir: Path) -> None:
    """Every test here writes its files into a folder of its own."""


def plan(text: str, *overrides: str, **options: Any) -> list[CheckedConfig]:
    Path("several.yaml").write_text(text)
    return plan_runs("several.yaml", overrides, **options)


def problems(text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        plan(text, *overrides)
    return [str(problem) for problem in caught.value.problems]


def test_runs_share_the_default_and_win_over_it() -> None:
    slow, fast, plain = (config.as_mapping() for config in plan(SEVERAL, "seed=4"))
    assert (slow["name"], fast["name"], plain["name"]) == ("slow", "quick", "plain")
    assert (slow["learning_rate"], fast["learning_rate"], plain["learning_rate"]) == (1e-4, 1e-2, 3e-4)
    assert slow["stop"]["env_steps"] == 1000 and fast["stop"]["env_steps"] == 500 and fast["stop"]["minutes"] == 1
    assert (fast["engine"]["backend"], fast["engine"]["num_cpus"], slow["engine"]["num_cpus"]) == ("inline", 2, 1)
    assert (slow["policy_hidden"], fast["policy_hidden"]) == ([8, 8], [16])
    assert {config["seed"] for config in (slow, fast, plain)} == {4}


def test_runs_are_chosen_by_name_and_made_for_each_seed() -> None:
    names = [config.run.name for config in plan(SEVERAL, seeds=[0, 1], only=["slow", "p*"])]
    assert names == ["slow_seed0", "slow_seed1", "plain_seed0", "plain_seed1"]
    with pytest.raises(InputError, match=r"--only fst: there is no such run; did you mean fast\?; the file has slow"):
        plan(SEVERAL, only=["fst"])
    with pytest.raises(InputError, match="is one run"):
        plan("algorithm: ppo\nenv: CartPole-v1\nstop: {env_steps: 1}\n", only=["fast"])


def test_mistakes_of_all_runs_come_at_once_where_they_stand() -> None:
    text = SEVERAL.replace("env_steps: 1000", "env_stepps: 1000").replace("lr: 1e-4", "lr: quick")
    assert problems(text.replace("num_cpus: 2", "num_cpu: 2")) == [
        "several.yaml:4:3: stop.env_steps: this key is required (stop once this many environment steps were taken)",
        "several.yaml:4:10: stop.env_stepps: unknown key; did you mean env_steps?",
        "several.yaml:11:5: learning_rate: 'quick' is not a schedule: write a number, or linear(start, end) as in "
        "linear(1e-3, 0)",
        "several.yaml:16:14: engine.num_cpu: unknown key; did you mean num_cpus?",
    ]
    assert problems("default: {algorithm: ppo}\n") == [
        "several.yaml: runs: expected runs by name, such as runs: {fast: {learning_rate: 1e-3}}",
    ]  # fmt: skip
    assert problems(SEVERAL + "seed: 1\n")[0] == (
        "several.yaml:19:1: seed: a file with several runs has default and runs; put this into default"
    )
    cyclic = problems("default: &a {env_kwargs: *a}\nruns: {x: {seed: 1}}\n")
    assert any("default.env_kwargs contains itself" in problem for problem in cyclic)
    assert problems(SEVERAL.replace("  plain:", "  plain: 3")) == [
        "several.yaml:18:3: runs.plain: expected a mapping of keys to values",
    ]


GOOD = "algorithm: ppo\nenv: CartPole-v1\nstop: {env_steps: 1000}\nrollout_length: 64\n"


def resolved(text: str, *overrides: str) -> dict[str, Any]:
    Path("c.yaml").write_text(text)
    source = read_config_file(Path("c.yaml"))
    apply_overrides(source, overrides)
    return check_config(source).as_mapping()


def test_references_take_the_value_of_another_key() -> None:
    text = GOOD + "minibatch_size: ${rollout_length}\nname: ${algorithm}-${stop.env_steps}-${minibatch_size}\n"
    values = resolved(text, "rollout_length=32")
    assert (values["minibatch_size"], values["name"]) == (32, "ppo-1000-32")
    assert resolved(GOOD + "name: a$${b}\n")["name"] == "a${b}"
    assert resolved(GOOD + "env_kwargs: {sutton_barto_reward: '${orthogonal_init}'}\northogonal_init: false\n")[
        "env_kwargs"
    ] == {"sutton_barto_reward": False}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("seed: ${rolout_length}", "c.yaml:5:1: seed: there is no 'rolout_length' in this config for ${rolout_length}; "
                                   "did you mean rollout_length?; a key that is referred to must be written"),
        ("name: x${name}", "c.yaml:5:1: name: ${name} refers to itself: name → name"),
        ("name: x${stop}", "c.yaml:5:1: name: ${stop} is a list or a mapping, which cannot be put into text"),
        ("seed: ${env}", "c.yaml:5:1: seed: expected a whole number, got 'CartPole-v1'"),
    ],
)  # fmt: skip
def test_references_that_lead_nowhere(line: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolved(GOOD + line + "\n")
    assert str(caught.value.problems[0]) == said


def test_keys_of_whole_files_are_explained_where_one_run_is_wanted() -> None:
    with pytest.raises(ConfigError, match="tune: unknown key here; it is for rlflow tune"):
        resolved(GOOD + "tune: {space: {seed: [0, 1]}}\n")
    with pytest.raises(ConfigError, match="runs: unknown key of a single run; rlflow train CONFIG trains files"):
        resolved(GOOD + "runs: {a: {seed: 1}}\n")
