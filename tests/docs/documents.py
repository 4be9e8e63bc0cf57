"""What a Markdown file asks its reader to do: code blocks, links, and how the tests run them.

Conventions, invisible to readers of the rendered page:

* Blocks of Python are one program a file, in order. Lines keep their numbers, so a traceback points into the page.
* A block whose first line is a comment with a file's name (``# mine.py``) is that file's content instead.
* In shell blocks, lines that start with ``rlflow`` are run, in order; ``RUN`` stands for the newest run's folder.
  In ``console`` blocks they follow a ``$``, and what is below must be what they print.
* ``<!-- not run: reason -->`` on the line above a block leaves it out.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_FENCE = re.compile(r"^```(\w*)\s*$")
_FILE = re.compile(r"^# ([\w/]+\.(?:py|yaml))\b")
_LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
_NOT_RUN = "<!-- not run: "


@dataclass
class Command:
    """An ``rlflow`` command as the page has it, and the output it claims (``None``: it claims nothing)."""

    line: int
    words: list[str]
    output: list[str] | None = None


@dataclass
class Page:
    """The parts of one Markdown file that the tests look at."""

    program: str = ""
    files: dict[str, str] = field(default_factory=dict)
    commands: list[Command] = field(default_factory=list)
    make_targets: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    blocks: int = 0
    """Of Python, those that are files apart."""


def read_page(path: Path) -> Page:
    """Takes a page apart."""
    page = Page()
    lines = path.read_text(encoding="utf-8").splitlines()
    program = [""] * len(lines)
    at = 0
    while at < len(lines):
        fence = _FENCE.match(lines[at])
        if fence is None:
            page.links += _LINK.findall(lines[at])
            at += 1
            continue
        first = at + 1
        end = next(i for i in range(first, len(lines)) if lines[i] == "```")
        skipped = at > 0 and lines[at - 1].startswith(_NOT_RUN)
        _add_block(page, program, fence[1], lines[first:end], first, skipped)
        at = end + 1
    page.program = "\n".join(program)
    return page


def _add_block(
    page: Page, program: list[str], language: str, block: list[str], first: int, skipped: bool
) -> None:
    named = _FILE.match(block[0]) if block else None
    if language in ("python", "yaml") and named:
        page.files[named[1]] = "\n".join(block) + "\n"
    elif language == "python" and not skipped:
        program[first : first + len(block)] = block
        page.blocks += 1
    elif language == "bash":
        for number, line in enumerate(block, first + 1):
            words = shlex.split(line, comments=True)
            if words[:1] == ["make"]:
                page.make_targets += words[1:]
            elif words[:1] == ["rlflow"] and not skipped:
                page.commands.append(Command(number, words))
    elif language == "console" and not skipped:
        for number, line in enumerate(block, first + 1):
            if line.startswith("$ "):
                page.commands.append(Command(number, shlex.split(line[2:]), []))
            else:
                output = page.commands[-1].output
                assert output is not None
                output.append(line)
