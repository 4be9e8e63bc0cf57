"""Starting the engine: what goes wrong says so and leaves nothing; what was left is swept."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from drivers import Driver
from waiting import is_gone, wait_for

from rlflow import engine
from rlflow.engine import api, local
from rlflow.engine.exceptions import EngineStateError, StartupError


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module that the engine's processes can import."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


def test_a_store_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"control store's folder.*file/store"):
        engine.init(store=tmp_path / "file" / "store")
    assert not engine.is_initialized()


def test_a_preloaded_module_that_ends_the_zygote(module):
    name = module("ends_at_import", "import os, sys\nprint('out of here', file=sys.stderr, flush=True)\nos._exit(7)\n")
    with pytest.raises(StartupError, match=r"(?s)zygote ended with 7.*out of here"):
        engine.init(num_cpus=1, preload=[name])
    assert not engine.is_initialized()
    engine.init(num_cpus=1)
    engine.shutdown()


def test_a_preloaded_module_that_raises_is_passed_over(module):
    name = module("raises_at_import", "raise RuntimeError('not today')\n")

    @engine.remote
    def works():
        return True

    engine.init(num_cpus=1, preload=[name])
    try:
        assert engine.get(works.remote())
    finally:
        engine.shutdown()


def test_workers_that_cannot_start(module):
    """They end where they replace sys.path and seed NumPy: a module of theirs breaks after the fork."""
    name = module(
        "breaks_workers",
        "import os, numpy\nzygote = os.getpid()\nseed = numpy.random.seed\n"
        "def broken(*args):\n    raise RuntimeError('no seed for this worker')\n"
        "numpy.random.seed = broken\n",
    )
    with pytest.raises((StartupError, EngineStateError), match=r"(?s)did not start.*no seed for this worker"):
        engine.init(num_cpus=1, preload=[name])
        wait_for(lambda: api.current_backend().failure, "the engine gives up")
        engine.get(engine.remote(os.getpid).remote())
    engine.shutdown()


def hanging_workers(module, monkeypatch, tmp_path, how_many, patience):
    """The first so many workers hang where they seed NumPy."""
    monkeypatch.setenv("RLFLOW_WORKER_START_SECONDS", patience)
    return module(
        "hangs_workers",
        "import os, time, numpy\nseed = numpy.random.seed\n"
        "def hangs_at_the_start(*args):\n"
        f"    for number in range({how_many}):\n"
        "        try:\n"
        f"            os.close(os.open({str(tmp_path)!r} + f'/hung{{number}}', os.O_CREAT | os.O_EXCL))\n"
        "        except FileExistsError:\n"
        "            continue\n"
        "        time.sleep(1000)\n"
        "    seed(*args)\n"
        "numpy.random.seed = hangs_at_the_start\n",
    )


def test_a_worker_that_hangs_as_it_starts_is_replaced(module, monkeypatch, tmp_path, caplog):
    engine.init(num_cpus=1, preload=[hanging_workers(module, monkeypatch, tmp_path, 1, "3")])
    try:
        assert engine.get(engine.remote(os.getpid).remote())
        wait_for(lambda: "Its stacks" in caplog.text, "it is reported")
        assert re.search(r"worker w\d+ \(pid \d+, .*\) has not started within 3.0 s and is killed", caplog.text)
        assert "in hangs_at_the_start" in caplog.text
    finally:
        engine.shutdown()


def test_when_all_workers_hang_as_they_start_the_error_has_their_stacks(module, monkeypatch, tmp_path):
    match = r"(?s)one worker after the other did not start; .*did not start and was killed.*in hangs_at_the_start"
    with pytest.raises((StartupError, EngineStateError), match=match):
        engine.init(num_cpus=1, preload=[hanging_workers(module, monkeypatch, tmp_path, 1000, "0.2")])
        wait_for(lambda: api.current_backend().failure, "the engine gives up")
        engine.get(engine.remote(os.getpid).remote())
    engine.shutdown()


def test_an_import_that_hangs_is_in_the_error(module, monkeypatch, tmp_path):
    class FromTheImportOn(float):
        """That many seconds, however long it takes to get there."""

        def __radd__(self, now):
            wait_for((tmp_path / "imports").exists, "the zygote imports it")
            return time.monotonic() + float(self)

    name = module(
        "hangs_at_import",
        f"import time\ndef at_import():\n    open({str(tmp_path / 'imports')!r}, 'w').close()\n    time.sleep(1000)\n"
        "at_import()\n",
    )
    monkeypatch.setattr(local, "START_SECONDS", FromTheImportOn(0.3))
    with pytest.raises(StartupError, match=r"(?s)did not start within 0.3 s.*--- zygote:.*in at_import\n"):
        engine.init(num_cpus=1, preload=[name])
    assert not engine.is_initialized()


def test_a_zygote_that_does_not_fork_is_reported(module, monkeypatch, tmp_path, caplog):
    """What a module does around a fork may hang, with its locks."""
    monkeypatch.setenv("RLFLOW_WORKER_START_SECONDS", "3")
    name = module(
        "hangs_at_fork",
        "import os, time\ndef hangs_before_the_third():\n"
        "    hangs_before_the_third.forks = getattr(hangs_before_the_third, 'forks', 0) + 1\n"
        f"    while hangs_before_the_third.forks == 3 and not os.path.exists({str(tmp_path / 'go')!r}):\n"
        "        time.sleep(0.01)\n"
        "os.register_at_fork(before=hangs_before_the_third)\n",
    )

    @engine.remote
    class Actor:
        def answer(self):
            return 1

    engine.init(num_cpus=1, preload=[name])
    try:
        actors = [Actor.remote() for _ in range(3)]
        wait_for(lambda: "in hangs_before_the_third" in caplog.text, "it is reported")
        said = r"zygote \(pid \d+, .*\), which forks the workers, has not forked w3 within 3.0 s"
        assert re.search(said, caplog.text)
        (tmp_path / "go").touch()
        assert engine.get([actor.answer.remote() for actor in actors]) == [1, 1, 1]
    finally:
        engine.shutdown()


def test_init_twice_leaves_the_first_as_it_was():
    engine.init(num_cpus=1)
    try:
        with pytest.raises(EngineStateError, match="initialised already"):
            engine.init(num_cpus=2)
        assert engine.cluster_resources()["CPU"] == 1.0
    finally:
        engine.shutdown()


def test_engines_of_two_drivers_beside_each_other(tmp_path):
    program = f"""
        start()
        while not os.path.exists({str(tmp_path / 'go')!r}):
            time.sleep(0.01)
        say(engine.get(identity.remote("alone")))
    """
    drivers = [Driver(program), Driver(program)]
    with drivers[0] as first, drivers[1] as second:
        first.started()
        second.started()
        assert first.folder != second.folder
        os.kill(first.pid, signal.SIGKILL)
        first.end()
        first.leaves_nothing()
        assert second.folder.is_dir() and second.shm.is_dir()
        (tmp_path / "go").touch()
        assert second.end() == (0, "alone\n", "")
        second.leaves_nothing()


def test_engines_that_start_and_end_at_once():
    """The folder above their sessions comes and goes with them."""
    program = "from rlflow import engine\nfor _ in range(3):\n    engine.init(num_cpus=1)\n    engine.shutdown()"
    drivers = [subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True) for _ in range(4)]
    for driver in drivers:
        _, err = driver.communicate(timeout=90)
        assert (driver.returncode, err) == (0, "")


def test_what_a_killed_session_left_is_swept():
    """Driver and supervisor killed at once, as by a reset: the next engine removes folders and strays."""
    with Driver("""
        start()
        say(engine.get(Keeper.remote().keep.remote(1)))
        time.sleep(1000)
    """) as driver:
        driver.started()
        stray = int(driver.line())
        os.kill(driver.supervisor, signal.SIGSTOP)  # it must not see its driver end
        os.kill(driver.pid, signal.SIGKILL)
        driver.end()
        os.kill(driver.supervisor, signal.SIGKILL)
        wait_for(lambda: is_gone(driver.supervisor), "the supervisor ends")
        assert driver.folder.exists() and driver.shm.exists() and not is_gone(stray)
        engine.init(num_cpus=1)
        engine.shutdown()
        driver.leaves_nothing()
        assert is_gone(stray)


def test_a_session_being_made_is_not_swept():
    """A folder without a lock may be one that another driver makes right now."""
    engine.init(num_cpus=1)
    base = Path(api.current_backend().session.folder).parent
    young = base / "s-just-made"
    young.mkdir()
    old = base / "s-left-behind"
    old.mkdir()
    os.utime(old, (time.time() - 10_000,) * 2)
    try:
        with Driver("start()") as driver:
            driver.started()
            driver.end()
        assert young.exists() and not old.exists()
    finally:
        young.rmdir()
        engine.shutdown()
