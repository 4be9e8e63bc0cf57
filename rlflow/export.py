"""Writes a run's policy as ONNX or TorchScript, and believes in the file only once it acts as the policy does.

A file that differs from what was trained is worse than none (issue trackers of other frameworks are full of them), so
the written file is loaded by the runtime that others will load it with, and compared on observations from the
environment.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .errors import InputError, RlflowError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rlflow.algorithms.base import TrainedPolicy

    from .exported_policy import ExportedPolicy

Format = Literal["onnx", "torchscript"]
ENDINGS = {"onnx": ".onnx", "torchscript": ".pt"}

ENVS, STEPS = 8, 64
"""How many environments are played for how many steps to get observations to compare on."""

TOLERANCE = 1e-4
"""By how much continuous actions may differ, relative to 1 and to their size."""


class ParityError(RlflowError):
    """The exported file does not act as the policy does."""


def export_policy(
    policy: TrainedPolicy, env: str, env_kwargs: Mapping[str, Any], out: Path, form: Format, about: Mapping[str, Any]
) -> int:
    """Writes ``out`` and compares it with ``policy``.

    Args:
        policy: what to write; its most likely actions.
        env, env_kwargs: where observations to compare on come from.
        out: the file.
        form: what to write.
        about: is put into the file beside the policy.

    Returns:
        the number of observations that were compared.

    Raises:
        InputError: a package is missing, the policy cannot be exported, or the file cannot be written.
        ParityError: the file acts differently; it has been deleted.
    """
    from .exported_policy import ExportedPolicy

    if form == "onnx":
        try:
            import onnx  # noqa: F401 - torch's exporter needs it
            import onnxruntime  # noqa: F401
        except ImportError:
            raise InputError("exporting ONNX needs onnx and onnxruntime: pip install 'rlflow[export]'") from None
    module = ExportedPolicy(policy).eval()
    observations, wanted = sampled_actions(policy, env, env_kwargs)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.touch()  # torch's own message about a folder that cannot be written is none for people
        (_write_onnx if form == "onnx" else _write_torchscript)(module, out, dict(about))
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}") from None
    if not module.memory_size:
        observations = observations.reshape(1, -1, module.observation_size)
    found = run_exported(out, form, observations, module.memory_size)
    difference = describe_difference(module, observations, wanted, found)
    if difference:
        out.unlink()
        raise ParityError(f"the exported file does not act as the policy does: {difference}; it was deleted")
    return len(wanted)


def sampled_actions(
    policy: TrainedPolicy, env: str, env_kwargs: Mapping[str, Any]
) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Observations [T, N, O] on the policy's own ways through the environment, and its likeliest actions [T · N, ...].

    The ways are those of drawn actions, which lead to more places. What a recurrent policy remembers goes on over the
    ends of episodes, on both sides of the comparison.
    """
    from rlflow.algorithms.envs import VectorStepper
    from rlflow.algorithms.normalization import Normaliser

    deciding, moving = policy.policy.bind(policy.weights), policy.policy.bind(policy.weights)
    normalise = None if policy.moments is None else Normaliser(policy.moments, policy.policy.layout)
    random = np.random.default_rng(0)
    stepper = VectorStepper(env, env_kwargs, ENVS)
    try:
        rows, actions = [], []
        observations = stepper.reset(list(range(ENVS)))
        for _ in range(STEPS):
            rows.append(np.array(observations, np.float32))
            seen = observations if normalise is None else normalise(observations)
            actions.append(np.array(deciding.act(seen, None)))
            observations = stepper.step(np.array(moving.act(seen, random)))[0]
    finally:
        stepper.close()
    return np.stack(rows), np.concatenate(actions)


def run_exported(
    path: Path, form: Format, observations: NDArray[np.float32], memory_size: int = 0
) -> NDArray[Any]:
    """The actions [T · N, ...] of a written file at T steps of observations [T, N, O]."""
    step = _onnx_step(path) if form == "onnx" else _torchscript_step(path)
    actions = []
    memory = np.zeros((observations.shape[1], memory_size), np.float32) if memory_size else None
    for rows in observations:
        chosen, memory = step(rows, memory)
        actions.append(chosen)
    return np.concatenate(actions)


Step = Callable[[Any, Any], tuple[Any, Any]]
"""Observations [N, O] and memory, or ``None`` → actions and memory."""


def _onnx_step(path: Path) -> Step:
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def step(rows: Any, memory: Any) -> tuple[Any, Any]:
        if memory is None:
            return session.run(["action"], {"observation": rows})[0], None
        action, after = session.run(["action", "memory_after"], {"observation": rows, "memory": memory})
        return action, after

    return step


def _torchscript_step(path: Path) -> Step:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = torch.jit.load(str(path))  # type: ignore[no-untyped-call]

    def step(rows: Any, memory: Any) -> tuple[Any, Any]:
        with torch.no_grad():
            if memory is None:
                return loaded(torch.from_numpy(rows)).numpy(), None
            action, after = loaded(torch.from_numpy(rows), torch.from_numpy(memory))
            return action.numpy(), after.numpy()

    return step


def describe_difference(
    module: ExportedPolicy, observations: NDArray[np.float32], wanted: NDArray[Any], found: NDArray[Any]
) -> str:
    """Empty when ``found`` are the actions ``wanted``, [T · N, ...] both, at observations [T, N, O]."""
    if wanted.shape != found.shape:
        return f"actions have shape {found.shape[1:]} and not {wanted.shape[1:]}"
    if np.issubdtype(wanted.dtype, np.floating):
        off = np.abs(wanted - found) > TOLERANCE * (1 + np.abs(wanted))
    else:
        off = (wanted != found) & _clear_choices(module, observations)
    wrong = off.reshape(len(off), -1).any(axis=1)
    if not wrong.any():
        return ""
    first = int(np.flatnonzero(wrong)[0])
    seen = observations.reshape(len(wanted), -1)[first]
    return (
        f"{int(wrong.sum())} of {len(wrong)} actions differ, first {found[first]} instead of {wanted[first]} at "
        f"observation {np.array2string(seen, threshold=8, precision=4)}"
    )


def _clear_choices(module: ExportedPolicy, observations: NDArray[np.float32]) -> NDArray[np.bool_]:
    import torch

    memory = torch.zeros(observations.shape[1], module.memory_size) if module.memory_size else None
    parts = []
    with torch.no_grad():
        for rows in torch.from_numpy(observations):
            clear, memory = module.clear(rows, memory)
            parts.append(clear.numpy())
    return np.concatenate(parts)


def _examples(module: ExportedPolicy) -> tuple[Any, ...]:
    """Inputs to trace with, of a batch of two."""
    import torch

    rows = torch.zeros(2, module.observation_size)
    return (rows, torch.zeros(2, module.memory_size)) if module.memory_size else (rows,)


def _write_onnx(module: ExportedPolicy, out: Path, about: dict[str, Any]) -> None:
    import onnx
    import torch

    inputs, outputs = ["observation"], ["action"]
    if module.memory_size:
        inputs, outputs = [*inputs, "memory"], [*outputs, "memory_after"]
    with warnings.catch_warnings():
        # The older of torch's exporters: the newer needs one more package and gives the same for these networks.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, _examples(module), str(out), input_names=inputs, output_names=outputs, dynamo=False,
            dynamic_axes={name: {0: "batch"} for name in (*inputs, *outputs)},
        )
    model = onnx.load(str(out))
    onnx.helper.set_model_props(model, {key: str(value) for key, value in about.items()})
    onnx.save(model, str(out))


def _write_torchscript(module: ExportedPolicy, out: Path, about: dict[str, Any]) -> None:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather have torch.export, which C++ programs cannot load
        traced = torch.jit.trace(module, _examples(module))  # type: ignore[no-untyped-call]
        torch.jit.save(traced, str(out), _extra_files={"about.json": json.dumps(about)})
