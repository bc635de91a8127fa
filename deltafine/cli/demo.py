"""`deltafine demo`: the whole job on a built-in example."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deltafine.storage import run_files


def demo(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Directory to make.")] = Path("deltafine-demo"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing demo.")] = False,
) -> None:
    """Make videos, train a small model, refine it, show the report; no input needed, about 3 minutes."""
    from deltafine.cli.console import Talk, load_tensorflow, print_text
    from deltafine.cli.refine import run
    from deltafine.jobs.demo import prepare

    load_tensorflow()
    with Talk() as talk:
        example = prepare(out, overwrite=overwrite, listener=talk)
    run(example.model, example.data, out / "run", streams=str(example.streams))
    print_text(f"Open {out / 'run' / run_files.PAGE} in a browser.")
