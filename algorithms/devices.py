"""Where a learner takes its gradients: the config's ``device``, and what it comes to.

The driver decides without torch, since the engine counts the GPUs: an actor that asks for one is started where there is
one, in a process of its own that sees this one alone. Whether torch can use it is found out there.
"""

from __future__ import annotations

import os
from typing import Literal

import rlflow.engine as engine

from .errors import UnfitConfigError
from .policies.protocol import Policy

Device = Literal["cpu", "cuda"]
DeviceChoice = Literal["auto", "cpu", "cuda"]

LARGE = 1_000_000
"""Parameters above which ``auto`` takes a GPU for networks without images. A gradient step there starts some hundred
kernels, microseconds each whatever they compute, and in that time a processor does a small network's whole step. A rule
of thumb: it was not measured."""

HELP = "`rlflow doctor` shows what this machine has; device: cpu works everywhere"


def device_at_once(choice: DeviceChoice, learners: int) -> Device | None:
    """What is known before the policy is; ``None``: :func:`chosen_device` has to look at it.

    Raises:
        UnfitConfigError: CUDA is asked for where the engine has no GPU.
    """
    gpu = engine.cluster_resources().get("GPU", 0) >= 1
    if choice == "cuda" and not gpu:
        raise UnfitConfigError(
            "device: cuda, but the engine found no GPU: this machine has none, or CUDA_VISIBLE_DEVICES hides it; "
            + HELP
        )
    if choice != "auto":
        return choice
    return None if gpu and learners == 1 else "cpu"


def chosen_device(policy: Policy, num_parameters: int) -> Device:
    """What ``auto`` means where there is a GPU."""
    return "cuda" if policy.layout.has_images or num_parameters > LARGE else "cpu"


def usable_device(choice: DeviceChoice) -> Device:
    """In the learner's process, which was given a GPU: ``auto`` does without if torch cannot use it. Imports torch.

    Raises:
        UnfitConfigError: it cannot, and CUDA was asked for.
    """
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if choice == "auto":
        return "cpu"
    raise UnfitConfigError(
        f"device: cuda, but torch {torch.__version__} sees no CUDA device in the learner's process, where "
        f"CUDA_VISIBLE_DEVICES is {os.environ.get('CUDA_VISIBLE_DEVICES')!r}: install a build of torch for CUDA that "
        f"fits the driver (https://pytorch.org/get-started); {HELP}"
    )
