"""``schema``: what may stand in a config, for editors and for people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rlflow.errors import InputError


def schema(
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to write; to the terminal by default.")
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", metavar="", help="The reference page docs/config.md instead of a JSON schema.")
    ] = False,
) -> None:
    """Write the JSON schema of configs, for editors.

    An editor that knows YAML then completes keys and marks mistakes, if a config's first line is
    "# yaml-language-server: $schema=config.schema.json".
    """
    import json

    from rlflow.config_reference import config_reference
    from rlflow.config_schema import config_schema

    text = config_reference() if markdown else json.dumps(config_schema(), indent=2, ensure_ascii=False) + "\n"
    if out is None:
        typer.echo(text, nl=False)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}") from None
    typer.echo(f"wrote {out}")
