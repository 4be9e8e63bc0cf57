"""``doctor``: is this machine fit, and what to do where it is not."""

from __future__ import annotations

import typer

from .arguments import JsonOption, print_json


def doctor(as_json: JsonOption = False) -> None:
    """Check this machine: cores, memory, /dev/shm, GPUs, versions.

    Starts an engine for a moment. Ends with exit code 1 when something keeps rlflow from working.
    """
    from rich.console import Console

    from rlflow import machine_check

    findings = machine_check.examine()
    if as_json:
        print_json(machine_check.as_json(findings))
    else:
        machine_check.print_findings(Console(highlight=False), findings)
    if any(finding.state == "problem" for finding in findings):
        raise typer.Exit(1)
