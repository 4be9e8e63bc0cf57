"""What ``rlflow doctor`` looks at: whether this machine is fit for rlflow, and what to do where it is not.

Each check is a function that finds out one thing. None of them imports torch, which takes seconds; the engine is
started for real, since that tells more than all the others.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console

MIB, GIB = 1 << 20, 1 << 30
SHARED_MEMORY = Path("/dev/shm")
DOCKER_DEFAULT = 64 * MIB
"""Of /dev/shm in a container that was started without ``--shm-size``."""
LEAST_SHARED_MEMORY = 512 * MIB
LEAST_FILES = 1024
LEAST_DISK = 2 * GIB

REQUIRED = (
    "numpy", "gymnasium", "torch", "cloudpickle", "pyzmq", "lmdb", "msgspec", "pydantic", "PyYAML", "typer", "rich",
    "safetensors", "psutil",
)
EXTRAS = {
    "plot": ("matplotlib",), "notebook": ("ipykernel", "matplotlib", "pandas"), "tensorboard": ("tensorboard",),
    "wandb": ("wandb",), "video": ("imageio", "imageio-ffmpeg", "pygame"), "tune": ("optuna",),
    "export": ("onnx", "onnxruntime"), "atari": ("ale-py",), "mujoco": ("mujoco",),
}

State = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """What one check found. A ``problem`` keeps something from working, a ``note`` makes it slower or smaller."""

    what: str
    state: State
    found: str
    advice: str = ""


def examine(start_engine: bool = True) -> list[Finding]:
    """Runs all checks."""
    checks: list[Callable[[], Iterator[Finding]]] = [
        _system, _cpus, _memory, _shared_memory, _gpus, _open_files, _disks, _packages, _extras,
    ]
    if start_engine:
        checks.append(_engine)
    return [finding for check in checks for finding in check()]


def as_json(findings: list[Finding]) -> dict[str, Any]:
    return {
        "fit": all(finding.state != "problem" for finding in findings),
        "checks": [asdict(finding) for finding in findings],
    }


def print_findings(console: Console, findings: list[Finding]) -> None:
    """A line a finding, what to do below it."""
    from rich.table import Table
    from rich.text import Text

    marks = {"ok": ("✓", "green"), "note": ("!", "yellow"), "problem": ("✗", "bold red")}
    table = Table.grid(padding=(0, 1))
    table.add_column()
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for finding in findings:
        text = Text(finding.found)
        if finding.advice:
            text.append(f"\n→ {finding.advice}", marks[finding.state][1])
        table.add_row(Text(*marks[finding.state]), finding.what, text)
    console.print(table)
    problems = sum(finding.state == "problem" for finding in findings)
    console.print()
    if problems:
        console.print(f"[bold red]{problems} problem{'s' if problems > 1 else ''}[/]: see the arrows above")
    else:
        console.print("[green]fit for training[/]")


def shared_memory(total: int, free: int) -> Finding:
    """Judges a /dev/shm of ``total`` bytes with ``free`` left."""
    found = f"{_size(total)}, {_size(free)} free"
    in_docker = "docker run --shm-size=4g ..., or --ipc=host; Kubernetes: an emptyDir with medium: Memory"
    if total <= DOCKER_DEFAULT:
        return Finding("/dev/shm", "problem", f"{found}: Docker's default, too small for large values", in_docker)
    if total < LEAST_SHARED_MEMORY:
        return Finding("/dev/shm", "note", f"{found}: large values will go to disk", in_docker)
    if free < LEAST_SHARED_MEMORY:
        return Finding(
            "/dev/shm", "note", f"{found}: somebody else fills it",
            "see who with: ls -lhS /dev/shm; sessions of rlflow that have died are swept by the next one",
        )
    return Finding("/dev/shm", "ok", found)


def _system() -> Iterator[Finding]:
    found = f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    if sys.platform != "linux":
        yield Finding("system", "problem", found, "worker processes need Linux; use --engine inline here")
    else:
        yield Finding("system", "ok", found)


def _cpus() -> Iterator[Finding]:
    from rlflow.engine import machine

    usable, there = machine.cpus(), os.cpu_count() or 1
    found = f"{usable:g} of {there}" if usable < there else f"{usable:g}"
    why = ", by affinity or the container's quota" if usable < there else ""
    if usable < 2:
        yield Finding("CPUs", "note", found + why, "workers and learner share one CPU; give the container more")
    else:
        yield Finding("CPUs", "ok", found + why)


def _memory() -> Iterator[Finding]:
    from rlflow.engine import machine

    total, used = machine.memory_in_use()
    free = total - used
    found = f"{_size(total)}, {_size(free)} free"
    if free < GIB:
        yield Finding("memory", "note", found, "torch and a few workers take about 1 GiB: close something")
    else:
        yield Finding("memory", "ok", found)


def _shared_memory() -> Iterator[Finding]:
    if not SHARED_MEMORY.is_dir():
        yield Finding("/dev/shm", "problem", "not there", "mount a tmpfs there; --engine inline works without")
        return
    usage = shutil.disk_usage(SHARED_MEMORY)
    yield shared_memory(usage.total, usage.free)


def _gpus() -> Iterator[Finding]:
    from rlflow.engine import machine

    count = len(machine.gpus(None))
    torch = _version("torch") or ""
    if count and torch.endswith("+cpu"):
        yield Finding(
            "GPUs", "note", f"{count}, but torch {torch} is a build for CPUs",
            "install a CUDA build of torch to use them: https://pytorch.org/get-started",
        )
    else:
        yield Finding("GPUs", "ok", str(count) if count else "none; networks run on the CPU")


def _open_files() -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < LEAST_FILES:
        yield Finding("open files", "problem", f"at most {soft}", f"ulimit -n {min(hard, 4096) if hard > 0 else 4096}")
    else:
        yield Finding("open files", "ok", f"at most {soft:,}")


def _disks() -> Iterator[Finding]:
    for what, path, hint in (
        ("runs", Path.cwd(), "make room, or set runs_dir"),
        ("temporary", Path(tempfile.gettempdir()), "make room, or set TMPDIR to a larger disk"),
    ):
        free = shutil.disk_usage(path).free
        found = f"{path}, {_size(free)} free"
        if not os.access(path, os.W_OK):
            yield Finding(f"{what} folder", "problem", f"{path} cannot be written", hint)
        elif free < LEAST_DISK:
            yield Finding(f"{what} folder", "note", found, hint)
        else:
            yield Finding(f"{what} folder", "ok", found)


def _packages() -> Iterator[Finding]:
    versions = {name: _version(name) for name in REQUIRED}
    missing = [name for name, version in versions.items() if version is None]
    found = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    if missing:
        yield Finding("packages", "problem", f"missing: {', '.join(missing)}", f"pip install {' '.join(missing)}")
    else:
        yield Finding("packages", "ok", found)


def _extras() -> Iterator[Finding]:
    there = {extra: all(map(_version, names)) for extra, names in EXTRAS.items()}
    absent = [extra for extra, complete in there.items() if not complete]
    found = ", ".join(extra for extra, complete in there.items() if complete) or "none"
    advice = f"for more: pip install 'rlflow[{','.join(absent)}]'" if absent else ""
    yield Finding("extras", "ok", found, advice)


def _engine() -> Iterator[Finding]:
    from time import perf_counter

    from rlflow import engine

    began = perf_counter()
    try:
        engine.init(num_cpus=1)
        engine.get(engine.remote(os.getpid).remote(), timeout=30)
    except Exception as error:  # whatever keeps it from starting is what one wants to read
        reason = str(error).strip() or type(error).__name__
        advice = "mend what is above; --engine inline needs less"
        yield Finding("engine", "problem", f"does not start: {reason}", advice)
    else:
        yield Finding("engine", "ok", f"starts and runs a task in {perf_counter() - began:.2f} s")
    finally:
        if engine.is_initialized():
            engine.shutdown()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _size(count: int) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.0f} MiB"
