"""What this machine has to share out: CPUs, GPUs and memory, as this process is allowed to use them.

A container sees the CPUs and the memory of its whole host; what it may use is in its control group (version 2 or 1).
GPUs are found without loading any library of NVIDIA's: that would take seconds and memory on every device.
"""

from __future__ import annotations

import os
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")
NVIDIA = Path("/proc/driver/nvidia/gpus")
THRESHOLD = "RLFLOW_MEMORY_USAGE_THRESHOLD"
UNLIMITED = 1 << 60
"""Version 1 says "no limit" with a number near 2^63."""


def cpus() -> float:
    """CPUs that this process may use: its affinity, within its container's quota (``--cpus=1.5``)."""
    allowed = float(len(os.sched_getaffinity(0)))
    quota = cpu_quota(CGROUPS)
    return allowed if quota is None else min(allowed, max(1.0, float(int(quota))))


def cpu_quota(root: Path) -> float | None:
    """CPUs' worth of time that the control group under ``root`` may use; None without a limit."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text()
        except OSError:
            return None
    try:
        return int(quota) / int(period) if int(quota) > 0 else None
    except ValueError:  # "max"
        return None


def memory() -> int:
    """Bytes of memory that this process and its children may use."""
    total = int(psutil.virtual_memory().total)
    limit = memory_limit(CGROUPS)
    return total if limit is None else min(total, limit)


def memory_limit(root: Path) -> int | None:
    """Bytes that the control group under ``root`` may use; None without a limit."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limit = int((root / name).read_text())
        except (OSError, ValueError):
            continue
        return limit if limit < UNLIMITED else None
    return None


def gpus(wanted: int | None) -> list[str]:
    """Names of ``wanted`` GPUs (all by default) as ``CUDA_VISIBLE_DEVICES`` has them.

    More than there are may be asked for where ``CUDA_VISIBLE_DEVICES`` does not say which: tests of programs do so on
    machines without any.

    Raises:
        ValueError: ``CUDA_VISIBLE_DEVICES`` has fewer.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        count = wanted if wanted is not None else len(list(NVIDIA.iterdir())) if NVIDIA.is_dir() else 0
        return [str(index) for index in range(count)]
    named = [name.strip() for name in visible.split(",") if name.strip()]
    if "-1" in named:  # CUDA's way to end the list
        named = named[: named.index("-1")]
    if wanted is not None and wanted > len(named):
        raise ValueError(
            f"num_gpus={wanted}, but CUDA_VISIBLE_DEVICES={visible!r} has {len(named)}; change one of the two"
        )
    return named[:wanted]


def memory_in_use() -> tuple[int, int]:
    """Bytes there are, and bytes that could not be had now, of the control group if it has a limit."""
    limit = memory_limit(CGROUPS)
    if limit is not None:
        used = memory_used(CGROUPS)
        if used is not None:
            return limit, used
    amounts = {}
    with open("/proc/meminfo") as lines:
        for line in lines:
            name, amount = line.split(":")
            amounts[name] = int(amount.split()[0]) * 1024
            if name == "MemAvailable":
                break
    return amounts["MemTotal"], amounts["MemTotal"] - amounts["MemAvailable"]


def memory_used(root: Path) -> int | None:
    """Bytes that the control group under ``root`` uses, without files that the kernel can drop."""
    for usage, statistics, name in (
        ("memory.current", "memory.stat", "inactive_file"),
        ("memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
    ):
        try:
            used = int((root / usage).read_text())
            found = dict(line.split() for line in (root / statistics).read_text().splitlines())
        except (OSError, ValueError):
            continue
        return used - int(found.get(name, 0))
    return None


def memory_threshold() -> float:
    """The share of memory in use past which a worker is killed; from 1 on none is.

    Raises ValueError when the environment variable is no such number.
    """
    text = os.environ.get(THRESHOLD, "0.95")
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not share > 0:
        raise ValueError(f"{THRESHOLD} must be a number above 0, such as 0.95 (1: kill nothing), got {text!r}")
    return share
