"""However a driver ends, nothing of its engine is left: no process, no socket, no shared memory."""

import os
import signal

import pytest
from drivers import Driver
from waiting import daemon_and_zygote, is_gone

AT_WORK = """
    def at_work(folder):
        start()
        values = [engine.put(np.zeros(1_000_000)), large.remote()]
        arrays = engine.get(values)
        keeper = Keeper.remote()
        pids = [engine.get(keeper.keep.remote(values))]
        busy = sleeper.remote(folder + "/sleeps")
        while not os.path.exists(folder + "/sleeps"):
            time.sleep(0.01)
        say("at work")
        return values, arrays, keeper, busy
"""

ENDINGS = {
    "the program's last line": ("", 0),
    "shutdown": ("engine.shutdown()", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "an exception": ("raise ValueError('in the driver')", 1),
    "os._exit": ("os._exit(4)", 4),
    "abort": ("os.abort()", -signal.SIGABRT),
    "the last line, beside a thread": ("threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()", 0),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_driver_that_ends_by_itself(tmp_path, ending):
    program, code = ENDINGS[ending]
    with Driver(f"{AT_WORK}\n    state = at_work({str(tmp_path)!r})\n    {program}") as driver:
        driver.started()
        assert driver.line() == "at work"
        returned, out, err = driver.end()
        assert (returned, out) == (code, "")
        if ending == "an exception":
            assert "ValueError: in the driver" in err and err.count("Traceback") == 1
        else:
            assert err == ""
        driver.leaves_nothing()


WAITING = {
    "in get": "engine.get(state[3])",
    "in wait": "engine.wait([state[3]])",
    "in a call's get": "engine.get([state[2].keep.remote(1), state[3]])",
    "asleep": "time.sleep(1000)",
    "computing": "while True: sum(range(1000))",
    "submitting": "while True: refs = [identity.remote(i) for i in range(100)]",
}


@pytest.mark.parametrize("waiting", WAITING)
def test_ctrl_c(tmp_path, waiting):
    """The terminal sends SIGINT to the whole group: just the driver answers it, and the engine goes with it."""
    program = f"{AT_WORK}\n    state = at_work({str(tmp_path)!r})\n    {WAITING[waiting]}"
    with Driver(program, new_session=True) as driver:
        driver.started()
        assert driver.line() == "at work"
        os.killpg(driver.pid, signal.SIGINT)
        code, _, err = driver.end()
        assert code == -signal.SIGINT
        assert err.rstrip().endswith("KeyboardInterrupt") and err.count("Traceback") == 1
        driver.leaves_nothing()


def test_sigterm_to_all_processes_is_left_to_the_driver():
    """As Slurm ends a job. A driver with a handler has time to save; a process that a task forked ends as anywhere."""
    with Driver("""
        import psutil

        start()
        signal.signal(signal.SIGTERM, lambda *_: None)

        @engine.remote
        def forked():
            ready, is_ready = os.pipe()
            child = os.fork()
            if child == 0:
                os.write(is_ready, b"!")
                time.sleep(60)
                os._exit(0)
            os.read(ready, 1)
            os.kill(child, signal.SIGTERM)
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

        refs = [identity.options(num_cpus=0.5).remote(i) for i in range(2)]
        engine.get(refs)
        everybody = [psutil.Process(), *psutil.Process().children(recursive=True)]
        for process in everybody:
            process.terminate()
        assert engine.get([identity.remote(i) for i in range(100)]) == list(range(100))
        assert all(process.is_running() for process in everybody)
        assert engine.get(forked.remote()) == -signal.SIGTERM
        say("in order")
    """) as driver:
        driver.started()
        code, out, err = driver.end()
        assert (code, out, err) == (0, "in order\n", "")
        driver.leaves_nothing()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
@pytest.mark.parametrize("waiting", ["in get", "computing"])
def test_a_driver_that_is_killed(tmp_path, number, waiting):
    program = f"{AT_WORK}\n    state = at_work({str(tmp_path)!r})\n    {WAITING[waiting]}"
    with Driver(program) as driver:
        driver.started()
        assert driver.line() == "at work"
        os.kill(driver.pid, number)
        assert driver.end()[0] == -number
        driver.leaves_nothing()


def test_ctrl_c_inside_get_leaves_the_engine_in_order(tmp_path):
    with Driver("""
        start()
        for interrupt in range(5):
            timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
            refs = [identity.remote(i) for i in range(300)]
            timer.start()
            try:
                while True:
                    assert engine.get(refs) == list(range(300))
                    refs = [identity.remote(i) for i in range(300)]
            except KeyboardInterrupt:
                timer.join()
            assert engine.get(refs[:300]) == list(range(len(refs)))
            assert engine.get([identity.remote(i) for i in range(1000)]) == list(range(1000))
        say("in order")
    """) as driver:
        driver.started()
        code, out, err = driver.end()
        assert (code, out, err) == (0, "in order\n", "")
        driver.leaves_nothing()


@pytest.mark.parametrize("victim", ["zygote", "supervisor"])
@pytest.mark.parametrize("waiting", ["get", "future", "nothing"])
def test_an_engine_process_that_is_killed(tmp_path, victim, waiting):
    """One clear error that names what died, no hang; then everything is gone and a new engine can start."""
    with Driver(f"""
        start()
        refs = [sleeper.remote({str(tmp_path / 'sleeps')!r})]
        while not os.path.exists({str(tmp_path / 'sleeps')!r}):
            time.sleep(0.01)
        say("ready")
        try:
            if {waiting!r} == "get":
                engine.get(refs)
            elif {waiting!r} == "future":
                refs[0].future().result()
            else:
                while not api.current_backend().failure:
                    time.sleep(0.01)
                engine.get(identity.remote(1))
        except engine.exceptions.EngineStateError as error:
            say(str(error).replace(chr(10), " "))
        engine.shutdown()
        engine.init(num_cpus=1)
        say(engine.get(identity.remote("again")))
    """) as driver:
        driver.started()
        assert driver.line() == "ready"
        pids = dict(zip(("daemon", "zygote"), daemon_and_zygote(driver.supervisor), strict=True))
        pids["supervisor"] = driver.supervisor
        os.kill(pids[victim], signal.SIGKILL)
        said = driver.line()
        assert "engine ended" in said
        if victim != "supervisor":
            assert f"{victim} ended with -9" in said
        assert driver.line() == "again"
        code, _, err = driver.end()
        assert code == 0 and "Traceback" not in err
        assert all(is_gone(pid) for pid in pids.values())
        driver.leaves_nothing()
