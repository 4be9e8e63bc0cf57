"""What tasks and actors print reaches the driver."""

import pytest
from drivers import Driver


def lines_of(program, **options):
    with Driver(f"    start(**{options!r})\n{program}") as driver:
        driver.started()
        code, out, err = driver.end()
        assert code == 0, err
        return out.splitlines(), err.splitlines()


PRINTS = """
    @engine.remote
    def prints(word):
        print(word, "first", sep="-")
        print("second\\nthird", end="\\n")
        print("to stderr", file=sys.stderr)
        return word

    @engine.remote
    class Printer:
        def __init__(self):
            print("in init")

        def say(self, word):
            print(word)
            print(word, file=sys.stderr)
            return os.getpid()
"""


def test_prints_of_tasks_come_with_their_source():
    out, err = lines_of(PRINTS + """
    engine.get(prints.remote("task"))
    engine.shutdown()
    """)
    source = out[0].partition(")")[0]
    assert out == [f"{source}) task-first", f"{source}) second", f"{source}) third"]
    assert source.startswith("(w") and "pid " in source
    assert err == [f"{source}) to stderr"]


def test_prints_of_actors():
    out, err = lines_of(PRINTS + """
    printer = Printer.remote()
    say(engine.get([printer.say.remote("one"), printer.say.remote("two")])[0])
    engine.shutdown()
    """)
    pid = next(line for line in out if line.isdigit())
    said = [line for line in out if not line.isdigit()]
    assert all(f"pid {pid})" in line for line in said + err)
    assert [line.partition(") ")[2] for line in said] == ["in init", "one", "two"]
    assert [line.partition(") ")[2] for line in err] == ["one", "two"]


def test_prints_before_the_program_ends_are_not_lost():
    """Without shutdown, too; and many of them."""
    out, _ = lines_of("""
    @engine.remote
    def count(n):
        for i in range(100):
            print(n, i)

    engine.get([count.remote(n) for n in range(10)])
    """)
    assert sorted(line.partition(") ")[2] for line in out) == sorted(f"{n} {i}" for n in range(10) for i in range(100))


def test_a_line_that_has_not_ended():
    out, _ = lines_of("""
    @engine.remote
    def half(word):
        print(word, end="", flush=True)

    engine.get(half.remote("half a line"))
    engine.shutdown()
    """)
    assert [line.partition(") ")[2] for line in out] == ["half a line"]


def test_prints_of_nested_tasks_and_failures():
    out, _ = lines_of(PRINTS + """
    @engine.remote
    def outer():
        print("outer")
        engine.get(prints.remote("inner"))
        raise ValueError("after printing")

    try:
        engine.get(outer.remote())
    except ValueError:
        say("failed")
    engine.shutdown()
    """)
    said = [line.partition(") ")[2] or line for line in out]
    assert sorted(said) == sorted(["outer", "inner-first", "second", "third", "failed"])


@pytest.mark.parametrize("log_to_driver", [True, False])
def test_log_to_driver(log_to_driver):
    out, err = lines_of(PRINTS + """
    engine.get(prints.remote("task"))
    say("the driver's own")
    engine.shutdown()
    """, log_to_driver=log_to_driver)
    assert "the driver's own" in out
    assert (len(out), len(err)) == ((4, 1) if log_to_driver else (1, 0))
