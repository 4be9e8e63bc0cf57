"""An exported policy acts as the policy does, in the runtime that others load it with; one that does not is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rlflow import engine
from rlflow.algorithms.base import TrainedPolicy
from rlflow.algorithms.normalization import Moments, Normaliser
from rlflow.algorithms.policies.actor import MlpActor
from rlflow.algorithms.policies.actor_critic import MlpActorCritic
from rlflow.algorithms.policies.torch_actor_critic import NetworkSpec, TorchActorCritic
from rlflow.errors import InputError
from rlflow.export import ParityError, describe_difference, export_policy, run_exported
from rlflow.exported_policy import ExportedPolicy

FORMS = ["onnx", "torchscript"]
SPACE = spaces.Box(-np.inf, np.inf, (3,), np.float32)
MASKED = spaces.Dict({"seen": SPACE, "action_mask": spaces.MultiBinary(4)})


@pytest.fixture(scope="module", autouse=True)
def _loaded_runtime(tmp_path_factory: pytest.TempPathFactory) -> None:
    """ONNX Runtime opens files of its own with the first session, and keeps them open."""
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        return


def trained(
    observation_space: spaces.Space[Any], action_space: spaces.Space[Any], actor_only: bool = False
) -> TrainedPolicy:
    """A policy with random weights, large enough to make clear choices, and statistics that move observations."""
    rng = np.random.default_rng(1)
    kind: Any = MlpActor if actor_only else MlpActorCritic
    shape = kind(observation_space, action_space)
    weights = shape.initial_parameters(rng)
    weights = (weights + 0.3 * rng.standard_normal(len(weights))).astype(np.float32)
    size = shape.layout.size
    return TrainedPolicy(shape, weights, Moments(100, np.linspace(-1, 1, size), np.linspace(50, 500, size)))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("observation_space", "action_space"),
    [
        (SPACE, spaces.Discrete(4, start=2)), (MASKED, spaces.Discrete(4)), (SPACE, spaces.MultiDiscrete([2, 3, 1])),
        (SPACE, spaces.MultiBinary(3)), (SPACE, spaces.Box(-0.5, np.array([[0.5, 1.0]], np.float32))),
    ],
    ids=["discrete", "masked", "multidiscrete", "multibinary", "box"],
)  # fmt: skip
def test_every_kind_of_action(
    observation_space: spaces.Space[Any], action_space: spaces.Space[Any], form: Any, tmp_path: Path
) -> None:
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    from rlflow import export

    policy = trained(observation_space, action_space)
    rows = np.random.default_rng(2).standard_normal((50, policy.policy.layout.size)).astype(np.float32) * 3
    if observation_space is MASKED:
        rows[:, 3:] = np.random.default_rng(3).integers(0, 2, (50, 4))
        rows[:, 3] = 1
    assert policy.moments is not None
    wanted = policy.policy.bind(policy.weights).act(Normaliser(policy.moments, policy.policy.layout)(rows), None)
    module, path = ExportedPolicy(policy), tmp_path / "policy"
    (export._write_onnx if form == "onnx" else export._write_torchscript)(module, path, {"env": "Mine-v0"})
    found = run_exported(path, form, rows[None])
    assert describe_difference(module, rows[None], np.asarray(wanted), found) == ""
    assert all(action_space.contains(action.astype(action_space.dtype)) for action in found)
    assert len(run_exported(path, form, rows[None, :1])) == 1  # any batch size


@pytest.mark.parametrize("form", FORMS)
def test_a_whole_policy_is_written_with_what_it_is(form: Any, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx") if form == "onnx" else None
    policy = trained(spaces.Box(-1, 1, (3,)), spaces.Box(-2, 2, (1,)), actor_only=True)  # Pendulum's
    path = tmp_path / "made" / "policy"
    assert export_policy(policy, "Pendulum-v1", {}, path, form, {"env": "Pendulum-v1"}) == 512
    if onnx is not None:
        assert {prop.key: prop.value for prop in onnx.load(str(path)).metadata_props}["env"] == "Pendulum-v1"
    else:
        files = {"about.json": ""}
        torch.jit.load(str(path), _extra_files=files)
        assert json.loads(files["about.json"])["env"] == "Pendulum-v1"
    assert not engine.is_initialized()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("lstm_size", "sde"), [(0, None), (8, None), (8, 4)], ids=["torch", "lstm", "lstm_sde"])
def test_networks_in_torch_and_their_memory(form: Any, lstm_size: int, sde: int | None, tmp_path: Path) -> None:
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    build = NetworkSpec("mlp", (16,), lstm_size=lstm_size)
    spaces_of_pendulum = spaces.Box(-1, 1, (3,)), spaces.Box(-2, 2, (1,))
    shape = TorchActorCritic(*spaces_of_pendulum, build, sde_sample_freq=sde)
    weights = shape.initial_parameters(np.random.default_rng(0)) * 3
    policy = TrainedPolicy(shape, weights, Moments(100, np.zeros(3), np.full(3, 40.0)))
    assert export_policy(policy, "Pendulum-v1", {}, tmp_path / "policy", form, {}) == 512


@pytest.mark.parametrize("form", FORMS)
def test_networks_that_see_pictures(form: Any, tmp_path: Path) -> None:
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    from rlflow import export

    picture = spaces.Dict({"seen": spaces.Box(0, 255, (12, 12, 3), np.uint8), "speed": spaces.Box(-1, 1, (2,))})
    shape = TorchActorCritic(picture, spaces.Box(-100, 100, (2,)), NetworkSpec("impala", (16,)))
    weights = shape.initial_parameters(np.random.default_rng(0))
    policy = TrainedPolicy(shape, weights, None)
    rows = np.random.default_rng(1).integers(0, 256, (20, shape.layout.size)).astype(np.float32)
    module = ExportedPolicy(policy).eval()
    (export._write_onnx if form == "onnx" else export._write_torchscript)(module, tmp_path / "policy", {})
    found = run_exported(tmp_path / "policy", form, rows[None])
    assert describe_difference(module, rows[None], shape.bind(policy.weights).act(rows, None), found) == ""
    assert (np.ptp(found, axis=0) > 0).all()  # it does look at them


def test_a_file_that_acts_differently_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rlflow import export

    policy = trained(spaces.Box(-1, 1, (3,)), spaces.Box(-2, 2, (1,)))
    whole = export._write_torchscript

    def without_normalisation(module: ExportedPolicy, *rest: Any) -> None:
        module._normalised = False
        whole(module, *rest)

    monkeypatch.setattr(export, "_write_torchscript", without_normalisation)
    path = tmp_path / "policy.pt"
    with pytest.raises(ParityError, match=r"\d+ of 512 actions differ, first "):
        export_policy(policy, "Pendulum-v1", {}, path, "torchscript", {})
    assert not path.exists()


def test_choices_that_rounding_decides_are_not_compared() -> None:
    policy = trained(SPACE, spaces.Discrete(2))
    module = ExportedPolicy(TrainedPolicy(policy.policy, np.zeros_like(policy.weights), None))
    rows = np.ones((4, 3), np.float32)
    assert describe_difference(module, rows[None], np.zeros(4, np.int64), np.ones(4, np.int64)) == ""
    clear = ExportedPolicy(policy)
    told = describe_difference(clear, rows[None], np.zeros(4, np.int64), np.ones(4, np.int64))
    assert "4 of 4 actions differ" in told


def test_what_cannot_be_exported_says_so(tmp_path: Path) -> None:
    policy = trained(spaces.Box(-1, 1, (3,)), spaces.Box(-2, 2, (1,)))
    with pytest.raises(InputError, match="a policy of class object cannot be exported"):
        ExportedPolicy(TrainedPolicy(object(), policy.weights, None))  # type: ignore[arg-type]
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        export_policy(policy, "Pendulum-v1", {}, tmp_path / "file" / "x.pt", "torchscript", {})
