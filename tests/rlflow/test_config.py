"""A config with mistakes: every one of them is named at once, where it stands, with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlflow.config_check import CheckedConfig, check_config, did_you_mean
from rlflow.config_source import ConfigError, apply_overrides, read_config_file, source_of_arguments


def check(path: Path, *overrides: str) -> CheckedConfig:
    source = read_config_file(path)
    apply_overrides(source, overrides)
    return check_config(source)


def problems(text: str, *overrides: str) -> list[str]:
    """The problems of a config as they are printed; an empty list when it has none."""
    path = Path("c.yaml")
    path.write_text(text)
    try:
        check(path, *overrides)
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


GOOD = "algorithm: ppo\nenv: CartPole-v1\nstop: {env_steps: 1000}\n"


@pytest.fixture(autouse=True)
def _in_workdir(workdir: Path) -> None:
    """Every test here writes its files into a folder of its own."""


def test_a_good_config_is_complete_with_its_defaults() -> None:
    Path("c.yaml").write_text(GOOD)
    checked = check(Path("c.yaml"))
    values = checked.as_mapping()
    assert checked.algorithm_class.name == "ppo"
    assert values["stop"] == {"env_steps": 1000, "minutes": None, "episode_return": None}
    assert values["evaluation"] == {"episodes": 20, "every_env_steps": None, "seed": 10_000}
    assert values["env"] == "CartPole-v1"
    assert {"seed", "num_envs", "learning_rate", "engine", "checkpoint"} <= values.keys()


def test_all_mistakes_come_at_once_with_line_and_column() -> None:
    text = """\
algorithm: ppo
env: CartPole-v9
learning_rat: 3e-4
num_envs: eight
seed: true
stop: {env_step: 10, env_steps: -1}
engine:
  backend: locl
  num_cpus: 1.5
evaluation: 3
"""
    assert problems(text, "checkpoint.kep=3", "gamma=abc", "nonsense") == [
        "c.yaml:2:1: unknown env 'CartPole-v9'; did you mean 'CartPole-v1' or 'CartPole-v0' or 'phys2d/CartPole-v1'?",
        "c.yaml:3:1: learning_rat: unknown key; did you mean learning_rate?",
        "c.yaml:4:1: num_envs: expected a whole number, got 'eight'",
        "c.yaml:5:1: seed: expected a number, got true",
        "c.yaml:6:8: stop.env_step: unknown key; did you mean env_steps?",
        "c.yaml:6:22: stop.env_steps: expected a number greater than 0, got -1",
        "c.yaml:8:3: engine.backend: expected 'local' or 'inline', got 'locl'; did you mean local?",
        "c.yaml:9:3: engine.num_cpus: expected a whole number, got 1.5",
        "c.yaml:10:1: evaluation: expected a mapping, got 3",
        "override 'checkpoint.kep=3': checkpoint.kep: unknown key; did you mean keep?",
        "override 'gamma=abc': gamma: expected a number, got 'abc'",
        "override 'nonsense': expected key=value, such as stop.env_steps=50000",
    ]


def test_missing_keys_say_what_they_need() -> None:
    assert problems("env: CartPole-v1\n") == [
        "c.yaml: algorithm: this key is required (a name such as 'ppo', or 'module:Class' for your own)",
        "c.yaml: stop: this key is required, with env_steps in it (when training ends)",
    ]
    assert problems(GOOD.replace("{env_steps: 1000}", "{}")) == [
        "c.yaml:3:1: stop.env_steps: this key is required (stop once this many environment steps were taken)"
    ]


def test_an_unknown_algorithm_does_not_hide_the_other_mistakes() -> None:
    found = problems(GOOD.replace("ppo", "pppo").replace("CartPole-v1", "CartPol-v1"), "stop.env_steps=0")
    assert len(found) == 3
    assert found[0].startswith("c.yaml:1:1: unknown algorithm 'pppo'; did you mean 'ppo'?")
    assert found[1].startswith("c.yaml:2:1: unknown env 'CartPol-v1'; did you mean 'CartPole-v1'")
    assert found[2] == "override 'stop.env_steps=0': stop.env_steps: expected a number greater than 0, got 0"


def test_a_rule_about_several_keys_points_to_one_of_them() -> None:
    [found] = problems(GOOD + "num_envs: 8\nenv_groups: 3\n")
    assert found.startswith("c.yaml:4:1: num_envs (8) must be a multiple of env_groups (3)")


def test_a_module_that_fails_to_import_is_a_mistake_of_the_config() -> None:
    Path("broken_algorithm.py").write_text("\n1 / 0\n")
    [found] = problems(GOOD.replace("ppo", "broken_algorithm:Mine"))
    assert found.startswith("c.yaml:1:1: importing broken_algorithm:Mine failed: ZeroDivisionError: division by zero")
    assert "broken_algorithm.py:2" in found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "c.yaml: the file is empty; a config is a YAML mapping such as 'algorithm: ppo'"),
        ("# nothing\n", "c.yaml: the file is empty; a config is a YAML mapping such as 'algorithm: ppo'"),
        ("- ppo\n", "c.yaml:1:1: expected a mapping of keys to values, got a list"),
        ("ppo\n", "c.yaml:1:1: expected a mapping of keys to values, got 'ppo'"),
        ("a: 1\n b: 2\n", "c.yaml:2:3: not valid YAML: mapping values are not allowed here"),
        ("a: !!python/object:os.system x\n", "c.yaml:1:4: not valid YAML: could not determine a constructor"),
        ("a: \0\n", "c.yaml: not valid YAML: unacceptable character #x0000"),
        ("a: 1\n---\na: 2\n", "c.yaml:2:1: not valid YAML: expected a single document"),
        (GOOD + "seed: 1\nseed: 2\n", "c.yaml:5:1: seed is given twice; the first is on line 4"),
        (GOOD + "3: 4\n", "c.yaml:4:1: keys are text, got 3"),
        (GOOD + "env_kwargs: &a {b: *a}\n", "c.yaml:4:17: env_kwargs.b contains itself"),
        (
            GOOD + "env_kwargs: {gravty: 1}\n",
            "c.yaml:4:1: env_kwargs: CartPole-v1 could not be made: TypeError: ",
        ),
        (GOOD + "name: ../other\n", "c.yaml:4:1: name: expected a plain name"),
        (GOOD + "lr: 1e-3\nlearning_rate: 1e-4\n", "c.yaml:4:1: lr is short for learning_rate, which is given too"),
    ],
)
def test_what_is_no_config(text: str, expected: str) -> None:
    found = problems(text)
    assert found and found[0].startswith(expected), found


def test_files_that_are_none() -> None:
    for path, expected in (
        ("nosuch.yaml", "nosuch.yaml: there is no such file; . has small.yaml"),
        (".", ".: this is a folder; give the YAML file in it"),
    ):
        with pytest.raises(ConfigError) as caught:
            read_config_file(Path(path))
        assert [str(problem) for problem in caught.value.problems] == [expected]
    Path("picture.yaml").write_bytes(b"\x89PNG\xff")
    with pytest.raises(ConfigError, match=r"picture.yaml: not UTF-8 text \(byte 0\)"):
        read_config_file(Path("picture.yaml"))


def test_a_shorthand_on_the_command_line_beats_the_full_name_in_the_file() -> None:
    Path("c.yaml").write_text(GOOD + "learning_rate: 1e-4\n")
    assert check(Path("c.yaml"), "lr=3e-4").as_mapping()["learning_rate"] == 3e-4
    Path("c.yaml").write_text(GOOD + "lr: 1e-4\n")
    assert check(Path("c.yaml"), "learning_rate=3e-4").as_mapping()["learning_rate"] == 3e-4


def test_overrides_win_are_yaml_and_may_reach_inside() -> None:
    Path("c.yaml").write_text(GOOD)
    values = check(
        Path("c.yaml"), "lr=3e-4", "stop.env_steps=1e4", "seed=1", "seed=2", "evaluation.episodes=0",
        "env_kwargs.render_mode=rgb_array", "policy_hidden=[8, 8]", "name=first=try",
    ).as_mapping()  # fmt: skip
    assert values["learning_rate"] == 3e-4
    assert values["stop"]["env_steps"] == 10_000
    assert (values["seed"], values["name"]) == (2, "first=try")
    assert values["evaluation"] == {"episodes": 0, "every_env_steps": None, "seed": 10_000}
    assert values["env_kwargs"] == {"render_mode": "rgb_array"}
    assert values["policy_hidden"] == [8, 8]


def test_an_override_corrects_a_mistake_of_the_file() -> None:
    assert problems(GOOD + "num_envs: eight\n", "num_envs=4") == []
    assert problems(GOOD.replace("{env_steps: 1000}", "{env_steps: no}"), "stop={env_steps: 5}") == []


def test_overrides_that_cannot_be_applied() -> None:
    assert problems(GOOD, "seed.x=1", "a.=1", "seed=[")[:2] == [
        "override 'seed.x=1': seed: expected a whole number, got a mapping",
        "override 'a.=1': expected key=value, such as stop.env_steps=50000",
    ]
    assert problems(GOOD + "seed: 1\n", "seed.x=1") == [
        "override 'seed.x=1': seed is 1, which has no key 'x' to set",
    ]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("3e-4", 3e-4), ("1e5", 1e5), ("+1.5E+3", 1500.0), (".5", 0.5), ("-2", -2), ("100_000", 100_000),
        ("0x10", 16), ("010", 10), (".inf", float("inf")), ("true", True), ("null", None), ("~", None),
        ("no", "no"), ("on", "on"), ("1:30", "1:30"), ("1.2.3", "1.2.3"), ("e5", "e5"), ("CartPole-v1", "CartPole-v1"),
    ],
)  # fmt: skip
def test_scalars_mean_what_they_look_like(written: str, meant: object) -> None:
    Path("c.yaml").write_text(f"key: {written}\n")
    value = read_config_file(Path("c.yaml")).values["key"]
    assert value == meant and type(value) is type(meant)


def test_merged_keys_count_and_may_be_overridden() -> None:
    text = "stop: &short {env_steps: 10}\n"
    Path("c.yaml").write_text(text + "evaluation: {<<: *short, episodes: 1}\n")
    source = read_config_file(Path("c.yaml"))
    assert source.values["evaluation"] == {"env_steps": 10, "episodes": 1}
    assert not source.problems


def test_arguments_of_a_python_call_are_named() -> None:
    with pytest.raises(ConfigError) as caught:
        check_config(source_of_arguments({"algorithm": "ppo", "env": "CartPole-v1", "lerning_rate": 1, "stop": {}}))
    assert [str(problem) for problem in caught.value.problems] == [
        "argument lerning_rate: lerning_rate: unknown key; did you mean learning_rate?",
        "argument stop: stop.env_steps: this key is required (stop once this many environment steps were taken)",
    ]


def test_did_you_mean_knows_beginnings_and_slips() -> None:
    known = ["clip_range", "entropy_coef", "gamma"]
    assert did_you_mean("clip", known) == "; did you mean clip_range?"
    assert did_you_mean("gama", known) == "; did you mean gamma?"
    assert did_you_mean("learning_rat", ["learners", "learning_rate"]) == "; did you mean learning_rate?"
    assert did_you_mean("zzz", known) == ""
