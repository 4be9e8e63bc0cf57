"""The programs of examples/subclassing: each trains by its YAML, and does what is its own."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import rlflow
from rlflow.algorithms import resolve

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "subclassing"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
LONGEST = 30
"""Lines of a PPO with a changed loss."""


@pytest.fixture(autouse=True)
def _beside_the_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    monkeypatch.syspath_prepend(str(FOLDER))


def example(name: str) -> ModuleType:
    return importlib.import_module(name)


def config_of(name: str) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return values


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_by_its_yaml(name: str, tmp_path: Path) -> None:
    run = rlflow.train(
        FOLDER / f"{name}.yaml", stop={"env_steps": 600}, evaluation={"episodes": 2}, engine={"backend": "inline"},
        runs_dir=str(tmp_path), progress=False,
    )
    assert list(run.metrics["env_steps"])[-1] >= 600
    assert run.evaluation is not None and len(run.evaluation["returns"]) == 2
    assert run.checkpoints


def started(name: str, **changes: Any) -> Any:
    written = config_of(name)
    cls = resolve(written["algorithm"])
    keys = {key: value for key, value in written.items() if key in cls.Config.model_fields}
    algorithm = cls(cls.Config(**{**keys, **changes}), total_env_steps=10_000)
    algorithm.setup()
    return algorithm


@pytest.mark.usefixtures("inline_engine")
class TestStepped:
    def test_a_penalty_holds_the_policy_back(self):
        """A heavy one leaves it nearer to the policy that acted than none does."""
        near = started("kl_penalty", kl_coef=100.0).training_step()["kl"]
        far = started("kl_penalty", kl_coef=0.0).training_step()["kl"]
        assert near < far

    def test_a_network_of_ones_own_is_what_is_trained(self):
        network = started("residual").policy.build
        assert network is example("residual").ResidualNetwork

    def test_an_algorithm_in_one_file_goes_on_from_its_state(self):
        original = started("a2c")
        for _ in range(3):
            original.training_step()
        resumed = started("a2c")
        resumed.load_state(original.state())
        ahead, again = original.training_step(), resumed.training_step()
        for metrics in (ahead, again):
            del metrics["steps_per_second"]
        assert ahead == again
        assert resumed.evaluate(2, seed=0) == original.evaluate(2, seed=0)


def test_the_loss_is_short():
    assert len((FOLDER / "kl_penalty.py").read_text(encoding="utf-8").splitlines()) <= LONGEST


def test_the_environment_keeps_to_gymnasiums_contract():
    from gymnasium.utils.env_checker import check_env

    check_env(example("docking").Docking(mass=2.0), skip_render_check=True)
