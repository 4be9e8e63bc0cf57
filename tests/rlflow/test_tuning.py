"""A search space is checked before anything starts; a study finds what is better, and goes on where it was left."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("optuna")

import optuna
import yaml

from rlflow.callbacks import StopTraining
from rlflow.config_source import ConfigError
from rlflow.errors import InputError, RlflowError
from rlflow.run_listing import list_runs
from rlflow.search_space import Choice, Range, parse_dimension
from rlflow.tuning import Study, _Pruner, best_trials, open_study, read_study, run_study

SEARCH = """\
algorithm: ppo
env: CartPole-v1
stop: {env_steps: 256}
evaluation: {episodes: 1}
engine: {backend: inline}
num_envs: 4
rollout_length: 32
epochs: 1
tune:
  trials: 3
  space:
    learning_rate: loguniform(1e-4, 1e-2)
    policy_hidden: [[8], [8, 8]]
"""


def study(text: str = SEARCH, *overrides: str) -> Study:
    Path("search.yaml").write_text(text)
    return read_study(Path("search.yaml"), list(overrides))


def test_dimensions_are_read() -> None:
    assert parse_dimension("loguniform(1e-5, 1e-2)") == Range(1e-5, 1e-2, False, True)
    assert parse_dimension(" int(1,20)") == Range(1, 20, True, False)
    assert parse_dimension([32, [8, 8]]) == Choice((32, [8, 8]))
    for wrong, said in (
        ("linear(1, 2)", "expected a range or choices"), ("uniform(2, 1)", "must be below"), ([1], "two or more"),
        ("int(1, 2.5)", "whole"), ("loguniform(0, 1)", "begins above 0"), ("uniform(a, b)", "no numbers"),
        (3, "expected"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            parse_dimension(wrong)


def test_mistakes_in_a_search_come_at_once_with_their_lines(workdir: Path) -> None:
    text = SEARCH.replace("learning_rate:", "learning_rat:").replace("trials: 3", "trails: 3")
    text += "    gamma: uniform(0.9, 0.99)\n    clip_range: [0.1]\nnum_env: 3\n"
    with pytest.raises(ConfigError) as caught:
        study(text)
    assert [str(problem) for problem in caught.value.problems] == [
        "search.yaml:10:3: tune.trails: unknown key; did you mean trials?",
        "search.yaml:12:5: learning_rat: unknown key; did you mean learning_rate?",
        "search.yaml:15:5: tune.space.clip_range: a list of choices needs two or more",
        "search.yaml:16:1: num_env: unknown key; did you mean num_envs?",
    ]
    with pytest.raises(ConfigError, match=r"search.yaml:14:5: gamma: expected a number of at most 1, got 1.5"):
        study(SEARCH + "    gamma: uniform(0.9, 1.5)\n")
    with pytest.raises(ConfigError, match=r"tune: this key is required, with space in it"):
        study(SEARCH.partition("tune:")[0])


def test_a_study_runs_its_trials_and_goes_on(workdir: Path) -> None:
    lines: list[str] = []
    found = run_study(study(), lines.append)
    folder = Path("runs/tune_search")
    assert [line.split()[:3] for line in lines] == [["trial", str(n), "complete"] for n in range(3)]
    assert {row.name for row in list_runs(folder)} == {"trial_000", "trial_001", "trial_002"}
    [best] = best_trials(found, 1)
    recorded = json.loads((folder / f"trial_{best.number:03}" / "evaluation.json").read_text())
    assert best.value == recorded["mean_return"] == max(row.evaluation or 0 for row in list_runs(folder))
    written = yaml.safe_load((folder / "best.yaml").read_text())
    assert written["learning_rate"] == best.params["learning_rate"] and "tune" not in written
    assert written["policy_hidden"] in ([8], [8, 8])

    wanted = study()
    left = open_study(wanted.folder, wanted.tune, load=False)  # as after a kill: a trial that never ended
    left.ask({"learning_rate": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True)})
    lines.clear()
    found = run_study(study(SEARCH, "tune.trials=4"), lines.append)
    assert lines[0] == "going on: 3 trials have ended" and len(lines) == 2
    interrupted, again = found.trials[3:]
    assert interrupted.state.name == "FAIL" and again.state.name == "COMPLETE"
    assert again.params["learning_rate"] == interrupted.params["learning_rate"]
    lines.clear()
    run_study(study(SEARCH, "tune.trials=4"), lines.append)
    assert lines == ["going on: 4 trials have ended"]
    with pytest.raises(InputError, match="has a study of another config"):
        run_study(study(SEARCH, "gamma=0.9"), lines.append)


def test_a_trial_below_the_median_of_the_others_is_given_up(workdir: Path) -> None:
    wanted = study(SEARCH, "tune.prune=true")
    found = optuna.create_study(pruner=optuna.pruners.MedianPruner(n_startup_trials=4), direction="maximize")
    for value in (10.0, 20.0, 30.0, 40.0):
        trial = found.ask()
        trial.report(value, 5)
        found.tell(trial, value)
    good, poor = _Pruner(found.ask(), wanted.tune), _Pruner(found.ask(), wanted.tune)
    for pruner in (good, poor):
        pruner._total = 100
        pruner.on_iteration({"env_steps": 50})  # no episode has ended yet
    good.on_iteration({"env_steps": 55, "episode_return": 26.0})
    with pytest.raises(StopTraining):
        poor.on_iteration({"env_steps": 55, "episode_return": 24.0})
    assert poor.pruned and not good.pruned


def test_trials_run_side_by_side_on_one_engine_and_failures_do_not_end_it(workdir: Path) -> None:
    Path("luck.py").write_text(
        "from rlflow.algorithms.ppo import PPO\n\n"
        "class Luck(PPO):\n"
        "    def training_step(self):\n"
        "        if self.config.seed % 2:\n"
        "            raise RuntimeError('no luck')\n"
        "        return super().training_step()\n"
    )
    text = SEARCH.partition("    learning_rate")[0] + "    seed: int(0, 50)\n"
    lines: list[str] = []
    wanted = study(text, "algorithm=luck:Luck", "engine={backend: local, num_cpus: 2}", "tune.trials=4", "tune.seed=1")
    found = run_study(wanted, lines.append)
    states = {trial.params["seed"] % 2: trial.state.name for trial in found.trials}
    assert states == {1: "FAIL", 0: "COMPLETE"}
    assert any("failed" in line and "no luck" in line for line in lines)
    assert (wanted.folder / "store").is_dir()
    with pytest.raises(RlflowError, match="no trial came to its end"):
        failing = study(text, "algorithm=luck:Luck", "tune.space.seed=[1, 3]")
        run_study(replace(failing, folder=Path("runs/failing")), lines.append)
