"""The README and the pages under docs/ do what they say: their programs run, their commands work, links lead on."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documents import PAGES, ROOT, Command, Page, read_page

RLFLOW = Path(sys.executable).with_name("rlflow")
SHORT = "stop.env_steps=1000"
"""Added to commands that train a whole config, which a reader does once and a test need not."""

pages = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)


@pages
def test_programs_run(path: Path, tmp_path: Path) -> None:
    page = read_page(path)
    if not page.blocks:
        pytest.skip("no Python")
    _prepare(page, tmp_path)
    program = tmp_path / path.with_suffix(".py").name
    program.write_text(page.program, encoding="utf-8")
    ended = _run([sys.executable, str(program)], tmp_path)
    assert ended.returncode == 0, ended.stdout
    for expected in re.findall(r"print\(.*\) +# (.+)", page.program):
        assert expected in ended.stdout.splitlines()


@pages
def test_commands_work(path: Path, tmp_path: Path) -> None:
    page = read_page(path)
    if not page.commands:
        pytest.skip("no commands")
    _prepare(page, tmp_path)
    for command in page.commands:
        where = f"{path.name}:{command.line}"
        ended = _run([str(RLFLOW), *_arguments(command, tmp_path)], tmp_path)
        if command.output is None:
            assert ended.returncode == 0, f"{where}\n{ended.stdout}"
        else:
            assert "\n".join(command.output) in ended.stdout, where


@pages
def test_links_and_make_targets_exist(path: Path) -> None:
    page = read_page(path)
    missing = [link for link in page.links if "://" not in link and not (path.parent / link).exists()]
    assert missing == []
    rules = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(page.make_targets) <= rules


def test_files_of_the_guide_are_the_examples() -> None:
    folder = ROOT / "examples" / "subclassing"
    shown = read_page(ROOT / "docs" / "subclassing.md").files
    assert shown == {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir() if path.is_file()}


# Tables of numbered rows: a case, what is promised, the tests that show it.
PROMISES = [("reliability.md", 32), ("promises.md", 17)]


@pytest.mark.parametrize(("name", "count"), PROMISES)
def test_the_tests_that_show_a_promise_exist(name: str, count: int) -> None:
    page = ROOT / "docs" / name
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"\[(test_\w+)\]\(([^)]+)\)", text)
    sources = {path: (page.parent / path).read_text(encoding="utf-8") for _, path in named}
    assert [test for test, path in named if not re.search(rf"^ *def {test}\(", sources[path], re.MULTILINE)] == []
    rows = re.findall(r"^\| (\d+) \|.*\| (.*) \| (.*) *\|$", text, re.MULTILINE)
    assert sorted(int(number) for number, _, _ in rows) == list(range(1, count + 1))
    unproven = [number for number, promise, tests in rows if "[test_" not in tests and promise.strip() != "*To come*"]
    assert unproven == [], "a promise needs a test"


def test_a_page_is_taken_apart(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(
        "[a](b.md)\n```python\nx = 1\n```\n```python\n# mine.py: a file\ny = 2\n```\n"
        "```bash\nmake train  # first\nrlflow tasks RUN\n```\n<!-- not run: long -->\n```bash\nrlflow train x\n```\n"
        "```console\n$ rlflow plot\noutput\n```\n",
        encoding="utf-8",
    )
    page = read_page(path)
    assert page.program.splitlines()[2] == "x = 1"
    assert "y = 2" not in page.program
    assert page.files == {"mine.py": "# mine.py: a file\ny = 2\n"}
    assert page.commands == [
        Command(11, ["rlflow", "tasks", "RUN"]), Command(18, ["rlflow", "plot"], ["output"]),
    ]
    assert (page.links, page.make_targets, page.blocks) == (["b.md"], ["train"], 1)


def _prepare(page: Page, folder: Path) -> None:
    shutil.copytree(ROOT / "configs", folder / "configs")
    for name, content in page.files.items():
        (folder / name).write_text(content, encoding="utf-8")


def _arguments(command: Command, folder: Path) -> list[str]:
    newest = max((folder / "runs").glob("*"), key=lambda run: run.stat().st_mtime, default=Path("RUN"))
    words = [str(newest.relative_to(folder)) if word == "RUN" and newest.exists() else word for word in command.words]
    whole = words[1:2] == ["train"] and command.output is None
    return words[1:] + ([SHORT] if whole and not any(word.startswith("stop.") for word in words) else [])


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env={**os.environ, "COLUMNS": "120"}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=100, check=False,
    )
