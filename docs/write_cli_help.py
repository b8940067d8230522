"""docs/cli.md from the commands themselves: `python docs/write_cli_help.py`. A test says whether it is current.

Words come from the commands, the form from here, so that neither a terminal's width nor another Typer changes the page.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from orchestrator.cli.main import app
from orchestrator.domain.jobs import CaptionOptions, GenerateOptions

PAGE = Path(__file__).with_name("cli.md")
HEAD = """# Command line

Written by `docs/write_cli_help.py` from the commands themselves; a test compares.

Commands talk to the server of `JANUS_URL` with the key in `JANUS_API_KEY`. Without `JANUS_URL` they use the local stack
in `$JANUS_HOME` (or `~/.janus`): `caption`, `generate` and `roundtrip` start it where it does not run, `models list`
then shows what has a name, the others say so.

| exit status | |
|---|---|
| 0 | done; for `caption` and `generate`: every item has a result |
| 1 | an error, told on standard error; `jobs verify`: the job is not as it was made; `status`: it does not run |
| 2 | wrong usage |
| 3 | some items have no result; `janus jobs failures ID` says why |

Results and tables go to standard output, everything else to standard error. Tables are tab-separated lines where the
output is not a terminal; `--json` is for scripts. Progress is a bar on a terminal, and elsewhere a plain line at most
every five seconds.

The Tab key completes commands, options, and the ids and names of what is there (jobs, models, teams, keys), once your
shell knows:

```sh
janus --install-completion     # of bash, zsh, fish or PowerShell, whichever runs; begin a new one after it
```
"""


FAMILY_DEFAULTS = (
    "`guidance` and the `temperature` of drawing are the checkpoint's own, of its `generation_config.json`, or else 5\n"
    "and 1 with Janus and Janus-Pro; JanusFlow's guidance is 2, its `steps` are 30."
)


def write_page() -> str:
    """The whole page."""
    return HEAD + write_defaults() + "".join(each_section(typer.main.get_command(app), "janus"))


def write_defaults() -> str:
    """What an option is when it is left out."""
    lines = ["", "What is left out has these values, for the client and the API too.", FAMILY_DEFAULTS, ""]
    for name, options in (("caption", CaptionOptions()), ("generate", GenerateOptions())):
        values = "; ".join(f"`{field}` {value!r}" for field, value in asdict(options).items() if value is not None)
        lines.append(f"- `janus {name}`: {values}")
    return "\n".join(lines) + "\n"


def each_section(command: Any, name: str) -> Iterator[str]:
    """A heading, the usage, what it does, its options; then the commands below it."""
    below = getattr(command, "commands", {})
    arguments = [write_argument(p) for p in command.params if p.param_type_name == "argument"]
    usage = " ".join([name, *arguments, "COMMAND …" if below else "[OPTIONS]"])
    rows = [row for parameter in command.params for row in each_row(parameter)]
    table = "\n| | |\n|---|---|\n" + "\n".join(rows) + "\n" if rows and not below else ""
    yield f"\n## `{name}`\n\n```text\n{usage}\n```\n\n{' '.join(command.help.split())}\n{table}"
    for word, subcommand in below.items():
        yield from each_section(subcommand, f"{name} {word}")


def write_argument(parameter: Any) -> str:
    shown = parameter.metavar or parameter.name.upper()
    return (shown if parameter.required else f"[{shown}]") + ("…" if parameter.nargs == -1 else "")


def each_row(parameter: Any) -> Iterator[str]:
    text = " ".join((getattr(parameter, "help", None) or "").split())
    if parameter.param_type_name == "argument":
        if text:
            yield f"| `{write_argument(parameter)}` | {text} |"
        return
    every = [*parameter.opts, *parameter.secondary_opts]
    names = ", ".join(f"`{name}`" if parameter.is_flag else f"`{name} …`" for name in every)
    marks = " **Required.**" if parameter.required else ""
    if not parameter.is_flag and parameter.default is not None and not callable(parameter.default):
        marks += f" `{parameter.default}` when left out."
    yield f"| {names} | {text}{marks} |"


if __name__ == "__main__":
    PAGE.write_text(write_page(), encoding="utf-8")
