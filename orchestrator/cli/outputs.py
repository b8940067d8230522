"""How commands say what results are written into."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.client import Existing, Form, Output, Sidecar

FORM = "What the ending of --out does not say; webdataset and dataset are folders."
EXISTING = (
    "Where an item has its result in --out already: skip it (add the rest), overwrite it, or append or prepend to its "
    ".txt. Left out, nothing is sent where there are results."
)
OF_RESULTS = (
    "Where an item has its result in --out already: skip it (add the rest), overwrite it, or append or prepend to its "
    ".txt. Left out, a file is replaced; a sidecar of somebody else's and a folder of tars or a dataset are not."
)
TARS = "Of --format webdataset: a local tar that was captioned; its samples are copied, with their captions."

Format = Annotated[Form | None, typer.Option("--format", help=FORM)]
WhatExists = Annotated[Existing | None, typer.Option("--existing", help=EXISTING)]
ResultsThere = Annotated[Existing | None, typer.Option("--existing", help=OF_RESULTS)]
SidecarKind = Annotated[Sidecar, typer.Option("--sidecar", help="In a folder: a caption's text, or its whole line.")]
ShardItems = Annotated[int, typer.Option("--items-per-tar", help="Of --format webdataset, where no tars are copied.")]
Tars = Annotated[list[Path] | None, typer.Option("--tar", help=TARS)]
ITEMS_PER_TAR = Output.shard_items


def flags_of(output: Output) -> str:
    """An output as the command line says it, to be copied."""
    words = ["--out", str(output.path)]
    words += ["--format", output.form] if output.form not in (Form.folder, output.path.suffix[1:]) else []
    words += ["--existing", output.existing] if output.existing else []
    words += ["--sidecar", output.sidecar] if output.sidecar is not Sidecar.txt else []
    words += ["--items-per-tar", str(output.shard_items)] if output.shard_items != ITEMS_PER_TAR else []
    for tar in output.tars:
        words += ["--tar", str(tar)]
    return " ".join(words)
