"""The leak check itself: every kind of leftover is reported, and nothing else is."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlflow import engine
from rlflow.engine.testing import leak_check

SLEEPER = [sys.executable, "-c", "import sys; sys.stdin.read()", "left-behind"]
"""Runs until its standard input is closed."""


def report_of(leak: Callable[[], object]) -> str:
    with pytest.raises(AssertionError) as caught, leak_check(timeout=0.05):
        leak()
    return str(caught.value)


def sessions(root: str) -> Path:
    folder = Path(root, f"rlflow-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def test_clean_code_passes() -> None:
    with leak_check(), open(os.devnull) as file:
        file.read()


def test_process() -> None:
    process = subprocess.Popen(SLEEPER, stdin=subprocess.PIPE)
    process.communicate()
    started: list[subprocess.Popen[bytes]] = []
    report = report_of(lambda: started.append(subprocess.Popen(SLEEPER, stdin=subprocess.PIPE)))
    started[0].communicate()
    assert f"process {started[0].pid} " in report
    assert "left-behind" in report
    assert "file descriptor" in report and "pipe:" in report  # its standard input


def test_process_that_was_not_waited_for() -> None:
    started: list[int] = []

    def leave_a_zombie() -> None:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        started.append(pid)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    report = report_of(leave_a_zombie)
    os.waitpid(started[0], 0)
    assert f"process {started[0]} (zombie" in report


def test_orphan_of_a_dead_child() -> None:
    """The child ends at once; its own child lives on and is nobody's descendant then."""
    read_end, write_end = os.pipe()
    script = (
        "import subprocess, sys\n"
        f"print(subprocess.Popen({SLEEPER!r}, stdin={read_end}, stdout=subprocess.DEVNULL).pid)\n"
    )
    printed: list[str] = []

    def leave_an_orphan() -> None:
        done = subprocess.run(
            [sys.executable, "-c", script], pass_fds=[read_end], stdout=subprocess.PIPE, text=True, check=True
        )
        printed.append(done.stdout.strip())

    report = report_of(leave_an_orphan)
    os.close(write_end)
    os.close(read_end)
    assert f"process {printed[0]} " in report


def test_file_descriptor(tmp_path: Path) -> None:
    opened: list[int] = []
    target = tmp_path / "left-open"
    report = report_of(lambda: opened.append(os.open(target, os.O_CREAT | os.O_RDWR)))
    os.close(opened[0])
    assert f"file descriptor {opened[0]} -> {target}" in report


@pytest.mark.parametrize("root", ["/dev/shm", tempfile.gettempdir()])
def test_session_file(root: str) -> None:
    session = sessions(root) / "sleak"

    def leave_a_session() -> None:
        session.mkdir(parents=True)
        (session / "segment-0").write_bytes(b"x")

    report = report_of(leave_a_session)
    (session / "segment-0").unlink()
    session.rmdir()
    assert f"file {session} (holds segment-0)" in report


@pytest.mark.parametrize("ours", [True, False])
def test_sessions_of_other_living_programs_are_not_ours(ours: bool) -> None:
    folder = sessions(tempfile.gettempdir()) / "sother"
    memory = sessions("/dev/shm") / "sother"
    driver = os.getpid() if ours else os.getppid()

    def start() -> None:
        memory.mkdir(parents=True)
        folder.mkdir(parents=True)
        (folder / "session.json").write_text(json.dumps({"driver_pid": driver}))

    try:
        if ours:
            report = report_of(start)
            assert f"file {folder} (holds session.json)" in report and f"file {memory} " in report
        else:
            with leak_check(timeout=0.05):
                start()
    finally:
        shutil.rmtree(folder)
        shutil.rmtree(memory)


def test_every_leftover_is_listed(tmp_path: Path) -> None:
    opened: list[int] = []

    def leave_two() -> None:
        opened.extend(os.open(tmp_path / name, os.O_CREAT | os.O_RDWR) for name in ("first", "second"))

    report = report_of(leave_two)
    for descriptor in opened:
        os.close(descriptor)
    assert str(tmp_path / "first") in report and str(tmp_path / "second") in report


def test_waits_for_what_is_about_to_end() -> None:
    with leak_check():
        child = os.fork()
        if child == 0:
            os.execv(sys.executable, [sys.executable, "-c", ""])
        process = subprocess.Popen([sys.executable, "-c", f"print({child})"], stdout=subprocess.DEVNULL)
        os.waitpid(child, 0)
        process.wait()


def test_error_of_the_block_is_not_hidden() -> None:
    opened: list[int] = []
    with pytest.raises(KeyError, match="own"), leak_check(timeout=0.05):
        opened.append(os.open(os.devnull, os.O_RDONLY))
        raise KeyError("own")
    os.close(opened[0])


def test_environment_is_as_before() -> None:
    before = dict(os.environ)
    with leak_check():
        pass
    assert dict(os.environ) == before


# --- an engine that goes on ---


@engine.remote
class Maker:
    def large(self):
        return np.zeros(100_000)

    def starts_a_process(self):
        return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)", "left-behind"]).pid


@engine.remote
def square(x):
    return x * x


def keep_maker(kept: list[Any], **options: Any) -> None:
    kept.append(Maker.options(**options).remote())
    engine.get(kept[0].large.remote())


LEAKS: dict[str, Callable[[list[Any]], None]] = {
    "1 objects of the process": lambda kept: kept.append(engine.put(1)),
    "1 objects in shared memory": lambda kept: kept.append(engine.get(engine.put(np.zeros(100_000)))),
    "1 living actors": keep_maker,
    "resources in use: {'CPU': 1.0": lambda kept: keep_maker(kept, num_cpus=1),
    "1 objects waited for": lambda kept: kept.append(square.remote(square.options(num_cpus=3).remote(1))),
    "file descriptor": lambda kept: kept.append(open(os.devnull)),  # noqa: SIM115
}


def test_use_of_a_running_engine_is_no_leak() -> None:
    """Workers that actors use up, memory that stays mapped and connections are the engine's own."""
    engine.init(num_cpus=2, log_to_driver=False)
    assert engine.get([square.remote(i) for i in range(100)]) == [i * i for i in range(100)]
    for _ in range(3):
        with leak_check(running_engine=True):
            assert engine.get(Maker.remote().large.remote()).sum() == 0
            assert engine.get(engine.put(np.zeros(100_000))).sum() == 0
            with pytest.raises(TypeError):
                engine.get(square.remote("text"))
    engine.shutdown()


def test_what_stays_in_a_running_engine_is_a_leak() -> None:
    engine.init(num_cpus=2, log_to_driver=False)
    for words, leak in LEAKS.items():
        kept: list[Any] = []
        with pytest.raises(AssertionError) as caught, leak_check(timeout=0.05, running_engine=True):
            leak(kept)
        if words == "file descriptor":
            kept[0].close()
        kept.clear()
        assert words in str(caught.value)
    engine.shutdown()


def test_a_process_that_an_actor_leaves_is_a_leak() -> None:
    engine.init(num_cpus=2, log_to_driver=False)
    with pytest.raises(AssertionError) as caught, leak_check(timeout=0.5, running_engine=True):
        assert engine.get(Maker.remote().starts_a_process.remote())
    engine.shutdown()  # takes it down
    assert "processes of the engine, there were" in str(caught.value) and "left-behind" in str(caught.value)


def test_an_engine_that_was_stopped_is_missed() -> None:
    engine.init(num_cpus=1)
    with pytest.raises(AssertionError, match="does not run any more"), leak_check(timeout=0.05, running_engine=True):
        engine.shutdown()
