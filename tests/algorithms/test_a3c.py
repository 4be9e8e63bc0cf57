"""A3C: learns, keeps staleness within its bound, goes on after a checkpoint and after deaths."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlflow import engine
from rlflow.algorithms.a3c import A3C, A3CConfig
from rlflow.algorithms.errors import StateError, UnfitConfigError
from rlflow.algorithms.parameter_server import CHECKPOINT_EVERY, ParameterServer, Shard
from rlflow.algorithms.rmsprop import RmsProp

SMALL: dict[str, Any] = {
    "env": "CartPole-v1", "num_envs": 8, "env_groups": 4, "rollout_length": 8, "gradients": 8,
    "policy_hidden": (16,), "value_hidden": (16,), "learning_rate": 3e-3, "optimizer": "adam", "gae_lambda": 0.95,
}
TIMED = ("steps_per_second",)
NORMALISED = {"normalize_observations": True, "normalize_rewards": True}


def started(algorithm: type[A3C] = A3C, **changes: Any) -> A3C:
    made = algorithm(A3CConfig(**{**SMALL, **changes}), total_env_steps=100_000)
    made.setup()
    return made


def steps(algorithm: A3C, count: int) -> list[dict[str, float]]:
    history = [algorithm.training_step() for _ in range(count)]
    return [{key: value for key, value in metrics.items() if key not in TIMED} for metrics in history]


@pytest.mark.usefixtures("inline_engine")
class TestInline:
    def test_learns(self):
        algorithm = started(num_envs=32, rollout_length=16, gradients=32)
        history = steps(algorithm, 12)
        assert history[-1]["episode_return"] > 2 * history[0]["episode_return"]
        algorithm.close()
        algorithm.close()

    @pytest.mark.parametrize(
        "changes", [{}, {"optimizer": "rmsprop"}, {"env": "Pendulum-v1", **NORMALISED}, {"shards": 3}]
    )
    def test_metrics_are_complete_and_finite(self, changes):
        (metrics,) = steps(started(**changes), 1)
        assert all(math.isfinite(value) for value in metrics.values())
        assert {"env_steps", "policy_loss", "value_loss", "entropy", "gradient_norm", "staleness"} <= metrics.keys()

    @pytest.mark.parametrize("shards", [1, 3])
    def test_a_saved_state_goes_on(self, shards):
        """Inline, where groups take turns, bit for bit; the parameters may be cut in other slices."""
        original = started(normalize_advantage=True, **NORMALISED)
        steps(original, 2)
        saved = original.state()
        ahead = steps(original, 2)
        resumed = started(normalize_advantage=True, shards=shards, **NORMALISED)
        resumed.load_state(saved)
        assert steps(resumed, 2) == ahead
        assert resumed.evaluate(3, seed=0) == original.evaluate(3, seed=0)

    def test_a_state_of_something_else_is_refused(self):
        saved = started().state()
        with pytest.raises(StateError, match="4 env groups"):
            started(env_groups=2).load_state(saved)
        with pytest.raises(StateError, match="parameters"):
            started(policy_hidden=(8,)).load_state(saved)
        with pytest.raises(StateError, match="rmsprop"):
            started(optimizer="rmsprop").load_state(saved)

    def test_more_shards_than_parameters_are_refused(self):
        with pytest.raises(UnfitConfigError, match="148 parameters"):
            started(shards=200, policy_hidden=(8,), value_hidden=(8,), env="Acrobot-v1")

    def test_groups_see_the_world_on_a_common_scale(self):
        """Frozen over an iteration, measured once before the first; an evaluation sees what training saw."""
        algorithm = started(env="Pendulum-v1", **NORMALISED)
        seen = algorithm.trained_policy().moments
        assert seen is not None and seen.count == SMALL["num_envs"] * SMALL["rollout_length"]
        steps(algorithm, 1)
        later = algorithm.trained_policy().moments
        assert later is not None and later.count == algorithm.env_steps
        plain = started(env="Pendulum-v1")
        assert plain.trained_policy().moments is None
        assert plain.evaluate(3, seed=0) != algorithm.evaluate(3, seed=0)

    def test_a_loss_of_ones_own(self):
        class Undecided(A3C):
            def loss(self, outputs, batch):
                return -outputs.distribution.entropy().mean(), {}

        metrics = steps(started(Undecided), 1)[0]
        assert metrics["gradient_norm"] < 1.0 and "policy_loss" not in metrics


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.usefixtures("inline_engine")
def test_the_written_out_gradient_is_that_of_the_loss(env):
    class Own(A3C):
        def loss(self, outputs, batch):
            return super().loss(outputs, batch)

    by_hand, by_torch = (
        started(cls, env=env, shards=1, entropy_coef=0.03, value_coef=0.7, gradients=12) for cls in (A3C, Own)
    )
    for ours, theirs in zip(steps(by_hand, 2), steps(by_torch, 2), strict=True):
        assert ours == {name: pytest.approx(value, rel=2e-2, abs=2e-4) for name, value in theirs.items()}
    parameters = [each.trained_policy().weights for each in (by_hand, by_torch)]
    np.testing.assert_allclose(*parameters, rtol=1e-2, atol=1e-3)


def test_rmsprop_is_torchs():
    import torch

    rng = np.random.default_rng(0)
    parameters = rng.normal(size=20).astype(np.float32)
    theirs = torch.tensor(parameters.copy(), requires_grad=True)
    ours, optimizer = parameters.copy(), RmsProp(20, epsilon=0.0)
    reference = torch.optim.RMSprop([theirs], lr=0.01, alpha=0.99, eps=0.0)
    for _ in range(5):
        gradient = rng.normal(size=20).astype(np.float32)
        optimizer.step(ours, gradient, 0.01)
        theirs.grad = torch.tensor(gradient)
        reference.step()
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-4, atol=1e-6)


class TestOnWorkers:
    @pytest.fixture(autouse=True)
    def workers(self):
        engine.init(num_cpus=2)
        yield
        engine.shutdown()

    def test_nobody_gets_too_far_ahead(self, tmp_path):
        """One group's task waits until others have applied as many gradients as they may."""
        algorithm = started(max_staleness=4, gradients=12)
        algorithm._gradient = engine.remote(num_returns=4)(
            slow_for_group_0(algorithm._gradient.__wrapped__, tmp_path)
        )
        metrics = steps(algorithm, 2)
        assert max(each["staleness_max"] for each in metrics) == 4
        algorithm.close()

    def test_a_worker_and_a_shard_die(self, tmp_path):
        algorithm = started(shards=2)
        gradient = dies_once(algorithm._gradient.__wrapped__, tmp_path / "died")
        algorithm._gradient = engine.remote(num_returns=5)(gradient)
        steps(algorithm, 2)
        assert (tmp_path / "died").exists()
        assert algorithm._server is not None
        before = algorithm._server.version
        engine.kill(algorithm._server._shards[1], no_restart=False)
        metrics = steps(algorithm, 2)[-1]
        assert algorithm._server.version == before + 16
        assert all(math.isfinite(value) for value in metrics.values())
        algorithm.close()

    def test_a_shard_comes_back_from_its_checkpoint(self):
        server = ParameterServer(np.zeros(4, np.float32), 2, "adam")
        one = [engine.put(np.ones(2, np.float32)) for _ in range(2)]
        for _ in range(70):
            server.apply(one, 0.01)
        there = np.concatenate(engine.get(server.parameters))
        engine.kill(server._shards[0], no_restart=False)
        server.apply(one, 0.01)
        again = np.concatenate(engine.get(server.parameters))
        assert (again[2:] < there[2:]).all() and (there[:2] < again[:2]).all()
        kept = [shard["optimizer"]["steps"] for shard in server.state()["shards"]]
        assert 70 - CHECKPOINT_EVERY <= kept[0] < 71 and kept[1] == 71
        server.close()


def slow_for_group_0(function: Any, folder: Path) -> Any:
    def gradient(spec: Any, state: Any, *rest: Any) -> Any:
        import time

        if state.group:
            (folder / f"{state.group}-{state.version}").touch()
        else:  # until others have gone on, or are held back
            seen = -1
            while (count := len(list(folder.iterdir()))) != seen:
                seen = count
                time.sleep(0.2)
        return function(spec, state, *rest)

    return gradient


def dies_once(function: Any, mark: Path) -> Any:
    def gradient(*args: Any) -> Any:
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args)

    return gradient


def test_shards_are_plain_objects():
    shard = Shard("adam", np.zeros(3, np.float32))
    shard.apply(np.ones(3, np.float32), 0.1)
    other = Shard("adam", np.zeros(3, np.float32))
    other.load_checkpoint(shard.save_checkpoint())
    for each in (shard, other):
        each.apply(np.ones(3, np.float32), 0.1)
    assert shard.parameters().tobytes() == other.parameters().tobytes()
