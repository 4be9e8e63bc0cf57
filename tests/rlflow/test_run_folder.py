"""The folder of a run: never shared, never guessed wrongly, readable after a crash."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from rlflow.environment import describe_environment
from rlflow.errors import InputError
from rlflow.run_folder import RunFolder, default_name, find_run, shown_path


def test_a_name_that_is_taken_gets_a_number(tmp_path: Path) -> None:
    names = [RunFolder.create(tmp_path / "runs", "first").path.name for _ in range(3)]
    assert names == ["first", "first_2", "first_3"]


def test_folders_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot make the run folder .*file/first: Not a directory; set runs_dir="):
        RunFolder.create(tmp_path / "file", "first")
    with pytest.raises(InputError, match="a file of that name is in the way"):
        RunFolder.create(tmp_path, "file")


def test_metrics_are_json_whatever_the_numbers(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "run")
    folder.append_metrics({"env_steps": 1, "loss": float("nan"), "kl": np.float32("inf")})
    folder.append_metrics({"env_steps": 2, "loss": np.float32(0.5)})
    with folder.metrics_file.open("a") as file:
        file.write('{"env_steps": 3, "lo')  # what a crash in the middle of a write leaves
    lines = folder.metrics_file.read_text().splitlines()
    assert json.loads(lines[0], parse_constant=pytest.fail) == {"env_steps": 1, "loss": None, "kl": None}
    assert folder.read_metrics() == [{"env_steps": 1, "loss": None, "kl": None}, {"env_steps": 2, "loss": 0.5}]


def test_only_the_newest_checkpoints_stay(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "run")
    for steps in (900, 1000, 20_000):
        folder.save_checkpoint(steps, {"a": steps}, {}, keep=2)
    (folder.checkpoints / ".step_3.partial").mkdir()  # what a crash leaves
    assert [path.name for path in folder.list_checkpoints()] == ["step_1000", "step_20000"]


def test_runs_are_found_by_path_and_by_name(workdir: Path) -> None:
    folder = RunFolder.create(Path("runs"), "first")
    folder.write_config({"algorithm": "ppo"})
    assert find_run("runs/first").path == find_run("first").path == Path("runs/first")
    with pytest.raises(InputError, match=r"no run 'secnd', .*; the newest in runs/: first"):
        find_run("secnd")
    with pytest.raises(InputError, match=r"is no run folder: it has no config\.yaml"):
        find_run(".")


def test_default_names_are_plain() -> None:
    name = default_name("my_module:Mine", "ALE/Pong-v5", 3)
    assert name.startswith("my_module-Mine_ALE-Pong-v5_3_")
    assert "/" not in name


def test_paths_are_shown_as_one_would_type_them(workdir: Path) -> None:
    assert shown_path(workdir / "runs" / "x") == "runs/x"
    assert shown_path(Path("/somewhere/else")) == "/somewhere/else"


def test_the_environment_is_described_with_and_without_git(workdir: Path) -> None:
    outside = describe_environment(workdir)
    assert outside["git"] is None
    assert outside["packages"]["numpy"]
    inside = describe_environment(Path(__file__).parent)["git"]
    assert inside is None or len(inside["commit"]) == 40  # None: the project is not in a repository here
