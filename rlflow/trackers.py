"""Metrics sent on to TensorBoard and Weights & Biases, by env steps, as listeners to the run.

Neither can end a run: what they need is checked before it begins, and what goes wrong after that is logged once.
TensorBoard's own writer is used, without torch or TensorFlow.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from netrc import NetrcParseError, netrc
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from .callbacks import Callback, RunStart
from .errors import InputError
from .run_folder import RunFolder, finite

if TYPE_CHECKING:
    from rlflow.algorithms.base import Evaluation

log = logging.getLogger("rlflow")


def make_trackers(wanted: Sequence[str] | None) -> list[Callback]:
    """Listeners for these trackers; ``None``: TensorBoard where it is installed.

    Raises:
        InputError: one of them is not installed.
    """
    if wanted is None:
        wanted = ["tensorboard"] if find_spec("tensorboard") else []
    missing = [name for name in wanted if find_spec(name) is None]
    if missing:
        raise InputError(f"trackers: {missing[0]} is not installed: pip install 'rlflow[{missing[0]}]'")
    return [TensorBoard() if name == "tensorboard" else WeightsAndBiases() for name in wanted]


class _Tracker(Callback):
    """What both have in common: which numbers there are, and that a failure is not the run's."""

    def __init__(self) -> None:
        self._broken = False
        self._start: RunStart | None = None

    def on_start(self, start: RunStart) -> None:
        self._start = start  # nothing is opened yet: what comes before the first iteration is to be quick

    def on_iteration(self, metrics: dict[str, float]) -> None:
        values = {_tag(name): value for name, value in metrics.items() if name not in ("env_steps", "iteration")}
        self._try_to_send(int(metrics["env_steps"]), values)

    def on_evaluation(self, evaluation: Evaluation, env_steps: int, final: bool) -> None:
        self._try_to_send(env_steps, {
            "evaluation/mean_return": evaluation.mean_return, "evaluation/std_return": evaluation.std_return,
            "evaluation/mean_length": evaluation.mean_length,
        })  # fmt: skip

    def on_end(self, folder: RunFolder) -> None:
        try:
            self.close(folder)
        except Exception as error:
            log.warning("%s was not closed in order: %r", type(self).__name__, error)

    def _try_to_send(self, step: int, values: Mapping[str, float]) -> None:
        if self._broken or self._start is None:
            return
        numbers = {tag: float(value) for tag, value in values.items() if finite(value) is not None}
        try:
            self.send(self._start, step, numbers)
        except Exception as error:
            self._broken = True
            log.warning("%s gets nothing more of this run: %r", type(self).__name__, error)

    def send(self, start: RunStart, step: int, values: Mapping[str, float]) -> None:
        raise NotImplementedError

    def close(self, folder: RunFolder) -> None:
        raise NotImplementedError


class TensorBoard(_Tracker):
    """Event files in the run's ``tensorboard/``; ``tensorboard --logdir runs`` shows all runs."""

    def __init__(self) -> None:
        super().__init__()
        self._writer: Any = None

    def send(self, start: RunStart, step: int, values: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        if self._writer is None:
            self._writer = EventFileWriter(str(start.folder.path / "tensorboard"))
            if start.env_steps:  # what was sent after the checkpoint is taken back
                begins = Event(session_log=SessionLog(status=SessionLog.START), step=start.env_steps + 1)
                self._writer.add_event(begins)
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        self._writer.add_event(Event(summary=summary, step=step))

    def close(self, folder: RunFolder) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None


class WeightsAndBiases(_Tracker):
    """A run of wandb's, in the project that ``WANDB_PROJECT`` names; offline where nobody has logged in."""

    def __init__(self) -> None:
        super().__init__()
        self._run: Any = None

    def send(self, start: RunStart, step: int, values: Mapping[str, float]) -> None:
        if self._run is None:
            self._run = _wandb_run(start)
        self._run.log(dict(values), step=step)

    def close(self, folder: RunFolder) -> None:
        if self._run is not None:
            self._run.finish(exit_code=int(folder.read_status()["state"] == "failed"))
        self._run = None


def _wandb_run(start: RunStart) -> Any:
    import wandb

    folder = start.folder.path
    # Without an account wandb would ask for one on the terminal, and wait.
    mode = os.environ.get("WANDB_MODE") or ("online" if _has_account() else "offline")
    note = folder / "wandb_id"  # so that a run that goes on is the same one there
    identity = note.read_text().strip() if note.is_file() else uuid4().hex[:8]
    note.write_text(identity)
    return wandb.init(
        project=os.environ.get("WANDB_PROJECT", "rlflow"), name=folder.name, id=identity, resume="allow",
        dir=str(folder), config=start.config.as_mapping(), mode=mode,
        settings=wandb.Settings(silent=True, console="off"),
    )


def _has_account() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        hosts = netrc(os.environ.get("NETRC")).hosts
    except (OSError, NetrcParseError):
        return False
    return any("wandb" in host for host in hosts)


def _tag(name: str) -> str:
    """TensorBoard groups by what is before the slash."""
    group, _, rest = name.partition("_")
    return f"time/{rest}" if group == "time" else f"train/{name}"
