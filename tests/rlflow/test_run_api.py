"""A run as Python has it: made from a file, a dict or a class; loaded, played, gone on with, shown."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import rlflow
from rlflow import engine
from rlflow.algorithms import resolve
from rlflow.checkpoint import read_manifest
from rlflow.config_source import ConfigError
from rlflow.errors import InputError
from rlflow.metrics_table import MetricsTable, metrics_table
from rlflow.restoring import find_checkpoint
from rlflow.run_folder import RunFolder

SMALL: dict[str, Any] = {
    "env": "CartPole-v1", "seed": 3, "stop": {"env_steps": 600}, "evaluation": {"episodes": 2},
    "checkpoint": {"every_env_steps": 200, "keep": 2}, "engine": {"backend": "inline"},
    "num_envs": 4, "rollout_length": 32, "minibatch_size": 64, "epochs": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> rlflow.Run:
    """A trained run; nobody changes it."""
    folder = tmp_path_factory.mktemp("api")
    trained = rlflow.train("ppo", **SMALL, runs_dir=str(folder / "runs"), progress=False)
    trained.plot()._repr_png_()  # matplotlib keeps its fonts open from the first picture on: no leak of a test's
    return trained


def test_a_file_a_dict_and_options_are_the_same_run(workdir: Path, run: rlflow.Run) -> None:
    of_file = rlflow.train("small.yaml", progress=False)
    assert rlflow.train(Path("small.yaml"), progress=False, stop={"minutes": 5}).config["stop"] == {
        "env_steps": 600, "minutes": 5.0, "episode_return": None,
    }
    of_dict = rlflow.train({"algorithm": "ppo", **SMALL}, progress=False)
    assert of_file.evaluation == of_dict.evaluation == run.evaluation
    assert list(of_file.metrics["policy_loss"]) == list(run.metrics["policy_loss"])
    with pytest.raises(ConfigError, match="argument sede: sede: unknown key; did you mean seed"):
        rlflow.train("small.yaml", sede=1)


def test_a_run_is_loaded_by_path_and_by_name(run: rlflow.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert rlflow.load(run.path).evaluation == run.evaluation
    monkeypatch.chdir(run.path.parents[1])
    assert rlflow.load(run.path.name).config == run.config
    assert run.status["state"] == "complete" and run.status["reason"] == "600 env steps"
    with pytest.raises(InputError, match="there is no run 'nowhere'"):
        rlflow.load("nowhere")


@pytest.mark.parametrize("backend", ["none", "inline"])
def test_a_run_is_evaluated_with_or_without_an_engine(run: rlflow.Run, backend: str) -> None:
    assert run.evaluation is not None
    if backend == "inline":
        engine.init(backend="inline")
    try:
        assert run.evaluate(2).returns == run.evaluation["returns"]
        assert engine.is_initialized() == (backend == "inline")
        assert run.evaluate(2, seed=1).returns != run.evaluation["returns"]
        first = run.evaluate(2, checkpoint=run.checkpoints[0].name)
        assert first.returns != run.evaluation["returns"]
    finally:
        engine.shutdown()
    with pytest.raises(InputError, match=r"has no checkpoint 'step_1'; it has step_.*, last, best"):
        run.evaluate(2, checkpoint="step_1")


def test_a_policy_acts_as_in_the_evaluation(run: rlflow.Run) -> None:
    policy = run.policy
    env = gymnasium.make("CartPole-v1")
    observation, _ = env.reset(seed=0)
    action = policy(observation)
    assert env.action_space.contains(action)
    batch = np.stack([observation, observation])
    assert policy(batch).tolist() == [action, action]
    drawn = policy(np.tile(observation, (200, 1)), random=np.random.default_rng(0))
    assert set(drawn.tolist()) == {0, 1}
    with pytest.raises(ValueError, match=r"an observation has the shape \(4,\), .*; got \(3,\)"):
        policy(observation[:3])
    total, over = 0.0, False
    while not over:
        observation, reward, terminated, truncated, _ = env.step(policy(observation))
        total, over = total + float(reward), terminated or truncated
    env.close()
    assert total > 5


def test_metrics_are_a_data_frame_or_a_table(run: rlflow.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = pytest.importorskip("pandas")
    frame = run.metrics
    assert isinstance(frame, pandas.DataFrame)
    rows = RunFolder(run.path).read_metrics()
    monkeypatch.setattr("rlflow.metrics_table.find_spec", lambda name: None)
    table = metrics_table(rows)
    assert isinstance(table, MetricsTable)
    assert list(table.columns) == list(frame.columns) and len(table) == len(frame)
    np.testing.assert_array_equal(table["kl"], frame["kl"].to_numpy())
    assert np.isnan(metrics_table([{"a": 1.0}, {"a": None, "b": 2.0}])["a"][1])
    assert table._repr_html_().count("<tr>") == 1 + len(rows)


def test_a_run_shows_itself(run: rlflow.Run) -> None:
    figure = run.plot()
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert "matplotlib.pyplot" not in sys.modules or figure not in map(
        sys.modules["matplotlib.pyplot"].figure, sys.modules["matplotlib.pyplot"].get_fignums()
    )
    html = run._repr_html_()
    assert "ppo on CartPole-v1" in html and "complete" in html and "<polyline" in html


def test_a_complete_run_trains_on_when_its_end_is_raised(workdir: Path) -> None:
    run = rlflow.train("small.yaml", progress=False)
    before = run.status
    assert run.resume(progress=False).status == before
    run.resume(progress=False, stop={"env_steps": 900})
    longer = rlflow.train("small.yaml", stop={"env_steps": 900}, progress=False)
    assert list(run.metrics["policy_loss"]) == list(longer.metrics["policy_loss"])
    with pytest.raises(ConfigError, match="argument lr: a run that goes on keeps its lr"):
        run.resume(lr=1.0)


def test_a_class_that_cannot_be_imported_by_name_is_kept(workdir: Path) -> None:
    class Local(resolve("ppo")):  # type: ignore[misc] # a base class that is known at run time
        pass

    run = rlflow.train(Local, **{**SMALL, "stop": {"env_steps": 200}}, progress=False)
    assert run.evaluation is not None
    assert run.evaluate(2).returns == run.evaluation["returns"]
    run.resume(stop={"env_steps": 400}, progress=False)
    assert run.status["env_steps"] >= 400
    assert rlflow.load(run.path, Local).evaluate(1).lengths
    with pytest.raises(ConfigError, match="has no 'test_a_class_that"):
        rlflow.load(run.path).evaluate(1)


def test_the_best_checkpoint_is_kept(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "run")
    folder.write_config({})
    for steps, score in ((1, 5.0), (2, 9.0), (3, None), (4, 7.0), (5, 8.0)):
        folder.save_checkpoint(steps, {"a": steps}, {"score": score}, keep=2)
    assert [path.name for path in folder.list_checkpoints()] == ["step_2", "step_4", "step_5"]
    folder.score_checkpoint(folder.list_checkpoints()[-1], 9.5)
    assert find_checkpoint(folder, "best").name == find_checkpoint(folder, "last").name == "step_5"


def test_a_return_that_is_no_number_does_not_keep_a_checkpoint_from_being_written(workdir: Path) -> None:
    class Odd(resolve("ppo")):  # type: ignore[misc] # a base class that is known at run time
        def training_step(self) -> dict[str, float]:
            return {**super().training_step(), "episode_return": np.float32("nan" if self.iteration == 1 else 7)}

    run = rlflow.train(Odd, **{**SMALL, "checkpoint": {"every_env_steps": 1}}, progress=False)
    assert read_manifest(run.checkpoints[-1])["about"]["score"] == 7
