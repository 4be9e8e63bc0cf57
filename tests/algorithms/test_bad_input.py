"""Bad input and environments that raise give errors that say where."""

from __future__ import annotations

import pickle

import pytest

from rlflow import engine
from rlflow.algorithms import resolve
from rlflow.algorithms.envs import check_env
from rlflow.algorithms.errors import EnvStepError, RLError, UnknownAlgorithmError, UnknownEnvError
from rlflow.algorithms.ppo import PPO, PPOConfig
from rlflow.algorithms.schedules import value_at


def test_resolve_knows_names_and_paths(monkeypatch, tmp_path):
    assert resolve("ppo") is PPO and resolve("PPO") is PPO
    (tmp_path / "my_algorithms.py").write_text(
        "from rlflow.algorithms.ppo import PPO\nclass MyPPO(PPO):\n    pass\nclass Other:\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    assert issubclass(resolve("my_algorithms:MyPPO"), PPO)
    with pytest.raises(UnknownAlgorithmError, match="MyPPO"):
        resolve("my_algorithms:MyPPOO")
    with pytest.raises(UnknownAlgorithmError, match="not a subclass"):
        resolve("my_algorithms:Other")


@pytest.mark.parametrize(("name", "said"), [
    ("pppo", "did you mean 'ppo'"),
    ("dreamer", "known: a3c, es, ppo"),
    ("no_such_module:X", "no_such_module"),
    (":", "unknown"),
])
def test_unknown_algorithms(name, said):
    with pytest.raises(UnknownAlgorithmError, match=said):
        resolve(name)


@pytest.mark.parametrize(("env", "said"), [
    ("CartPol-v1", "CartPole-v1"),
    ("cartpole-v1", "CartPole-v1"),
    ("CartPole-v99", "CartPole-v1"),
    ("Nothing", "Nothing"),
    ("", "unknown env"),
    ("no_such_module:Env-v0", "no_such_module"),
    ("broken_envs:Countr-v0", "Counter-v0"),
])
def test_unknown_envs(env, said):
    with pytest.raises(UnknownEnvError, match=said):
        check_env(env)


def test_known_envs_pass_and_kwargs_are_tried():
    check_env("CartPole-v1")
    check_env("broken_envs:Counter-v0", {"period": 3})
    with pytest.raises(EnvStepError, match="perod"):
        check_env("broken_envs:Counter-v0", {"perod": 3})


def test_an_env_that_raises_is_named_with_worker_index_seed_and_action(inline_engine):
    config = PPOConfig(
        env="broken_envs:RaisesAtStep-v0", env_kwargs={"at": 5}, num_envs=4, env_groups=2, rollout_length=8
    )
    algorithm = PPO(config, 1000)
    algorithm.setup()
    with pytest.raises(engine.exceptions.TaskError) as caught:
        algorithm.training_step()
    cause = caught.value.cause
    assert isinstance(cause, EnvStepError) and isinstance(cause, RLError)
    for error in (cause, pickle.loads(pickle.dumps(cause))):
        assert error.operation == "step" and error.env_index == 0 and isinstance(error.seed, int)
        assert error.action in ("0", "1")
        assert "the motor is on fire" in error.trace
        for part in ("RaisesAtStep-v0", "env 0", "pid", f"seed {error.seed}", f"last action {error.action}"):
            assert part in str(error)
    algorithm.close()


def test_schedules():
    assert value_at("linear(1e-3, 0)", 0.25) == pytest.approx(7.5e-4)
    assert value_at(0.5, 0.9) == 0.5 and value_at("1e-3", 0.5) == 1e-3
    assert value_at("linear(2,1)", 5.0) == 1.0
    config = PPOConfig(env="CartPole-v1", learning_rate="linear(1e-3,0)", clip_range=1)
    assert config.learning_rate == "linear(0.001, 0.0)" and config.clip_range == 1.0
    for wrong in ("linar(1, 0)", "linear(1)", "fast", "linear(a, 0)", "nan", -1.0, "linear(1, -1)"):
        with pytest.raises(ValueError, match="schedule"):
            PPOConfig(env="CartPole-v1", learning_rate=wrong)


@pytest.mark.parametrize("wrong", [
    {"num_envs": 7, "env_groups": 2}, {"num_envs": "8"}, {"num_envs": True}, {"gama": 0.9}, {"gamma": 1.5},
    {"policy_hidden": ["a"]}, {"activation": "gelu"}, {"epochs": 0}, {"seed": 1.5},
])
def test_config_refuses(wrong):
    with pytest.raises(ValueError):
        PPOConfig(env="CartPole-v1", **wrong)


def test_config_takes_yaml_types():
    config = PPOConfig(env="CartPole-v1", gamma=1, policy_hidden=[32, 32], target_kl=None)
    assert config.gamma == 1.0 and config.policy_hidden == (32, 32)
    assert PPOConfig(**config.model_dump()) == config
    assert all(field.description for field in PPOConfig.model_fields.values())
