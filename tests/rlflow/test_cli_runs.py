"""The verbs that look at runs and use them, on three small runs that the tests share."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from rlflow.cli import app, main
from rlflow.config_check import check_config
from rlflow.config_source import source_of_arguments
from rlflow.machine_check import DOCKER_DEFAULT, EXTRAS, shared_memory
from rlflow.planning import parse_seeds
from rlflow.plotting import confidence_band, group_runs
from rlflow.run_folder import RunFolder
from rlflow.run_listing import describe_run, list_runs
from rlflow.training import run_training

SMALL: dict[str, Any] = {
    "algorithm": "ppo", "env": "CartPole-v1", "stop": {"env_steps": 300}, "evaluation": {"episodes": 2},
    "engine": {"backend": "inline"}, "num_envs": 4, "rollout_length": 32, "minibatch_size": 64, "epochs": 1,
}  # fmt: skip


class Ended(NamedTuple):
    code: int
    out: str
    err: str


PROGRAM = Path(sys.executable).with_name("rlflow")
Invoke = Callable[..., Ended]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with runs of seeds 0 and 1, and one with another learning rate."""
    folder = tmp_path_factory.mktemp("project")
    for name, changes in (
        ("first", {"seed": 0}), ("second", {"seed": 1, "trackers": []}), ("other", {"seed": 0, "learning_rate": 0.01}),
    ):
        source = source_of_arguments({**SMALL, **changes, "name": name, "runs_dir": str(folder / "runs")})
        run_training(check_config(source))
    return folder


@pytest.fixture
def invoke(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Invoke:
    """The command line in this process, which has imported what is slow."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["rlflow", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return Ended(int(ended.value.code or 0), out, err)

    return run


def test_runs_are_listed_sorted_and_filtered(invoke: Invoke, project: Path) -> None:
    listed = json.loads(invoke("runs", "--sort", "name", "--json").out)
    assert [row["name"] for row in listed] == ["first", "other", "second"]
    assert {row["status"] for row in listed} == {"complete"}
    assert all(row["evaluation"] > 0 and row["env_steps"] >= 300 for row in listed)

    assert [row.name for row in list_runs(project / "runs", sort="time")] == ["other", "second", "first"]
    best = list_runs(project / "runs", sort="evaluation")
    assert [row.evaluation for row in best] == sorted((row.evaluation or 0.0 for row in best), reverse=True)
    for where, names in (
        (["seed=0"], {"first", "other"}), (["lr=0.01"], {"other"}), (["env=Cart*", "seed=1"], {"second"}),
        (["stop.env_steps=300", "status=complete"], {"first", "second", "other"}), (["status=failed"], set()),
    ):
        assert {row.name for row in list_runs(project / "runs", where)} == names

    table = invoke("runs").out.splitlines()
    assert len(table) == 4 and all(len(line) <= 80 for line in table)
    assert invoke("runs", "--where", "nonsense").code == 2
    assert "there is no folder" in invoke("runs", "--dir", "nosuch").err


def test_the_state_of_a_run_is_read_from_its_files(project: Path, tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "young")
    folder.write_config({"algorithm": "ppo", "env": "CartPole-v1", "stop": {"env_steps": 500}})
    assert describe_run(folder).status == "stopped"
    with folder.locked():
        assert folder.is_running() and describe_run(folder).status == "running"
    assert not folder.is_running()
    folder.write_status("failed", 0, "no luck")
    assert describe_run(folder).status == "failed"
    folder.write_status("running", 0, "")  # and its process was killed
    assert describe_run(folder).status == "stopped"
    folder.append_metrics({"env_steps": 500, "episode_return": 0.0})
    row = describe_run(folder)
    assert (row.env_steps, row.episode_return, row.evaluation) == (500, 0.0, None)


def test_runs_are_compared(invoke: Invoke) -> None:
    compared = json.loads(invoke("compare", "first", "other", "--json").out)
    assert compared["differences"] == {"learning_rate": [3e-4, 0.01]}
    assert set(compared["metrics"]) >= {"evaluation", "env_steps", "episode_return", "kl"}
    shown = invoke("compare", "first", "second", "other").out
    assert "learning_rate" in shown and "seed" in shown and "num_envs" not in shown
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert "give two runs or more" in invoke("compare", "first").err


def test_runs_of_one_config_are_one_curve_with_a_band(project: Path) -> None:
    groups = group_runs([RunFolder(project / "runs" / name) for name in ("first", "second", "other")])
    assert [(group.title, len(group.curves)) for group in groups] == [
        ("PPO on CartPole-v1, learning_rate=0.0003", 2), ("PPO on CartPole-v1, learning_rate=0.01", 1),
    ]
    command = [str(PROGRAM), "plot", "first", "second", "other", "--out", "curves.png"]  # matplotlib keeps fonts open
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "wrote curves.png\n", done.stderr
    assert (project / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_band_lies_within_the_samples_and_around_their_mean() -> None:
    samples = np.array([[0.0, 1.0], [4.0, 1.0], [8.0, 1.0]])
    low, high = confidence_band(samples)
    assert 0.0 <= low[0] < 4.0 < high[0] <= 8.0
    assert low[1] == high[1] == pytest.approx(1.0)


def test_a_policy_is_evaluated_as_its_run_was(invoke: Invoke, project: Path) -> None:
    recorded = json.loads((project / "runs/first/evaluation.json").read_text())
    again = json.loads(invoke("eval", "first", "--episodes", "2", "--json").out)
    assert again["returns"] == recorded["returns"] and again["env_steps"] == recorded["env_steps"]
    drawn = json.loads(invoke("eval", "first", "--episodes", "2", "--stochastic", "--json").out)
    assert drawn["stochastic"] and drawn["returns"] != recorded["returns"]
    assert " return over 2 episodes" in invoke("eval", "first", "--episodes", "2").out
    missing = invoke("eval", "first", "--checkpoint", "step_1")
    assert missing.code == 2 and "it has step_" in missing.err


def test_an_evaluation_is_filmed_without_a_screen(invoke: Invoke, project: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    pytest.importorskip("pygame")
    import imageio.v2 as imageio

    ended = invoke("eval", "first", "--episodes", "1", "--video", "--json")
    [film] = json.loads(ended.out)["videos"]
    with imageio.get_reader(project / film["path"]) as reader:
        assert reader.count_frames() == film["return"]  # CartPole gives 1 a step, and each step was filmed before
        assert reader.get_meta_data()["fps"] == 50
        assert np.ptp(reader.get_data(0)) > 200  # a picture, not a black screen


def test_several_seeds_are_several_runs_and_a_summary(invoke: Invoke, project: Path) -> None:
    (project / "small.yaml").write_text(json.dumps({**SMALL, "name": "seeds", "stop": {"env_steps": 100}}))
    ended = invoke("train", "small.yaml", "--seeds", "3,5", "--engine", "inline")
    assert ended.code == 0, ended.err
    assert [row.seed for row in list_runs(project / "runs", ["name=seeds_*"], "name")] == [3, 5]
    assert "over 2 runs (mean and standard deviation)" in ended.out
    assert "rlflow plot runs/seeds_seed3 runs/seeds_seed5" in ended.out
    (project / "several.yaml").write_text(json.dumps({
        "default": {**SMALL, "stop": {"env_steps": 100}}, "runs": {"slow": {"lr": 1e-5}, "fast": {"lr": 1e-2}},
    }))
    ended = invoke("train", "several.yaml")
    assert ended.code == 0 and "rlflow plot runs/slow runs/fast" in ended.out
    assert "over 2 runs" not in ended.out  # a mean over different configs
    (project / "failing.py").write_text(
        "from rlflow.algorithms.ppo import PPO\n\n"
        "class Fails(PPO):\n"
        "    def training_step(self):\n"
        "        if self.config.seed == 3:\n"
        "            raise RuntimeError('no luck with 3')\n"
        "        return super().training_step()\n"
    )
    ended = invoke("train", "small.yaml", "algorithm=failing:Fails", "name=luck", "--seeds", "3-4")
    assert ended.code == 1 and "no luck with 3" in ended.err
    assert {row.name: row.status for row in list_runs(project / "runs", ["name=luck_*"])} == {
        "luck_seed3": "failed", "luck_seed4": "complete",
    }


def test_seeds_are_read() -> None:
    assert parse_seeds("0-2,7, 1") == [0, 1, 2, 7]


def test_a_dry_run_prints_a_config_that_can_be_trained(invoke: Invoke, project: Path) -> None:
    (project / "dry.yaml").write_text(json.dumps(SMALL))
    before = sorted((project / "runs").iterdir())
    first = invoke("train", "dry.yaml", "lr=linear(1e-3, 0)", "--seed", "9", "--engine", "local", "--dry-run")
    assert "learning_rate: linear(0.001, 0.0)" in first.out and "seed: 9" in first.out
    (project / "resolved.yaml").write_text(first.out)
    assert invoke("train", "resolved.yaml", "--dry-run").out == first.out
    assert "\n---\n" in invoke("train", "dry.yaml", "--seeds", "0-1", "--dry-run").out
    assert "seed: 0" in invoke("train", "--resume", "first", "--dry-run").out
    assert sorted((project / "runs").iterdir()) == before


def test_the_doctor_knows_all_extras() -> None:
    text = (Path(__file__).parents[2] / "setup.cfg").read_text(encoding="utf-8")
    extras = text.partition("extras_require]")[2].partition("\n[")[0]
    assert sorted(re.findall(r"^(\w+) =", extras, re.MULTILINE)) == sorted([*EXTRAS, "dev"])


def test_the_doctor_says_what_to_fix(invoke: Invoke) -> None:
    ended = invoke("doctor", "--json")
    report = json.loads(ended.out)
    checks = {check["what"]: check for check in report["checks"]}
    assert ended.code == (0 if report["fit"] else 1)
    assert checks["engine"]["state"] == "ok", checks
    assert "torch" in checks["packages"]["found"]
    assert {"CPUs", "memory", "/dev/shm", "GPUs", "open files"} <= checks.keys()

    small = shared_memory(DOCKER_DEFAULT, DOCKER_DEFAULT)
    assert small.state == "problem" and "--shm-size" in small.advice
    assert shared_memory(8 << 30, 1 << 20).state == "note"
    assert shared_memory(8 << 30, 4 << 30).state == "ok"


def test_help_fits_80_columns_and_every_verb_has_examples(invoke: Invoke) -> None:
    whole = invoke("--help").out
    assert "Exit codes" in whole
    verbs = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
    assert {"train", "eval", "plot", "runs", "compare", "doctor", "tasks"} <= set(verbs)
    for text in (whole, *(invoke(verb, "--help").out for verb in verbs)):
        assert "$ rlflow" in text
        assert all(len(line) <= 80 for line in text.splitlines())


def test_completion_knows_runs(project: Path) -> None:
    done = subprocess.run(
        [str(PROGRAM)], cwd=project, capture_output=True, text=True, timeout=60,
        check=False,
        env={**os.environ, "_RLFLOW_COMPLETE": "complete_bash", "COMP_WORDS": "rlflow eval fi", "COMP_CWORD": "2"},
    )
    assert done.stdout.split() == ["first"], done.stderr
