"""What makes a comparison fair: ratios that point the right way, and equal hyperparameters."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def load(name: str) -> ModuleType:
    """A module of benchmarks/, which is a folder of programs and no package."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


report = load("report")
hyperparameters = load("ppo_hyperparameters")


@pytest.mark.parametrize(
    ("unit", "ours", "theirs"), [("tasks/s", 300, 100), ("s", 1, 3), ("env steps", 20, 60)]
)
def test_a_ratio_above_one_means_that_ours_is_better(unit: str, ours: float, theirs: float) -> None:
    assert report.advantage(unit, ours, theirs) == pytest.approx(3)


def test_the_range_is_of_pairs_from_the_same_round() -> None:
    ratio = report.ratio_with_range("tasks/s", [10, 30, 20], [1, 2, 4])
    assert ratio == {"ratio": 10.0, "ratio_min": 5.0, "ratio_max": 15.0}


def test_rounds_that_failed_leave_the_pairs_in_place() -> None:
    ratio = report.ratio_with_range("tasks/s", [None, 30, 20], [1, 2, None])
    assert ratio is not None
    assert (ratio["ratio_min"], ratio["ratio_max"]) == (15.0, 15.0)
    assert report.ratio_with_range("tasks/s", [None, 30], [1, None]) is None


def test_a_peer_at_zero_does_not_end_the_report() -> None:
    assert math.isinf(report.advantage("tasks/s", 1, 0))


def test_the_cartpole_config_is_the_zoos() -> None:
    written = yaml.safe_load((ROOT / "configs" / "ppo_cartpole.yaml").read_text())
    assert hyperparameters.differences_from_zoo(written) == []


def test_a_difference_from_the_zoo_is_named() -> None:
    (difference,) = hyperparameters.differences_from_zoo({**hyperparameters.ZOO, "gamma": 0.99})
    assert "gamma" in difference and "0.98" in difference


def test_hyperparameters_get_their_sb3_names_and_schedules() -> None:
    arguments = hyperparameters.sb3_arguments({**hyperparameters.ZOO, "env_groups": 2})
    schedule = arguments.pop("learning_rate")
    assert (schedule(1.0), schedule(0.5), schedule(0.0)) == pytest.approx((1e-3, 5e-4, 0.0))
    assert arguments.pop("clip_range")(0.5) == pytest.approx(0.1)
    assert arguments == {
        "n_steps": 32, "batch_size": 256, "n_epochs": 20, "gamma": 0.98, "gae_lambda": 0.8, "ent_coef": 0.0
    }


def test_a_hyperparameter_sb3_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="overlap"):
        hyperparameters.sb3_arguments({**hyperparameters.ZOO, "overlap": True})
