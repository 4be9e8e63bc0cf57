"""The leak check itself: every kind of leftover is reported, and nothing else is."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

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
