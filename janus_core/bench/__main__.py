"""The engine beside what people would otherwise run: python -m janus_core.bench, or `janus bench engine`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from janus_core.bench.cases import Case, Contender
from janus_core.errors import JanusCoreError

PEERS = ("transformers", "official-style")


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        figures = _run(options)
    except (JanusCoreError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    if options.json:
        print(json.dumps(figures, indent=2))  # noqa: T201
    else:
        print(*tabulate(figures), sep="\n")  # noqa: T201
    return 0


def tabulate(figures: dict[str, Any]) -> list[str]:
    """Lines for people: everybody's times, and how many times faster we are."""
    lines = [f"{'':16}{'first token':>14}{'a step':>12}{'we are faster':>28}{'equal tokens':>15}"]
    for name, times in figures["contenders"].items():
        line = f"{name:16}{times['first_seconds']:12.3f} s{times['step_ms']:9.2f} ms"
        if against := figures["against"].get(name):
            step = against["step"]
            ratio = f"{step['median']:.2f}x ({step['least']:.2f} to {step['most']:.2f})"
            line += f"{ratio:>28}{against['equal_tokens']:>14.0%}"
        lines.append(line)
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="janus bench engine", description="Measure the engine beside its peers.")
    parser.add_argument("--model", type=Path, required=True, help="a checkpoint folder in the Hugging Face layout")
    parser.add_argument("--task", choices=("caption", "generate"), default="generate")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--prompt-tokens", type=int, default=276)
    parser.add_argument("--tokens", type=int, default=32, help="steps measured in each round")
    parser.add_argument("--peer", choices=(*PEERS, "all", "none"), default="all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--kernels", choices=("auto", "plain", "packed", "compiled"), default="auto")
    parser.add_argument("--quantize", choices=("none", "int8"), default="none")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true")
    return parser


def _run(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    from janus_core import load_engine
    from janus_core.bench.compare import compare
    from janus_core.bench.inputs import Inputs
    from janus_core.bench.ours import Ours
    from janus_core.bench.peers import OfficialStyle, Transformers, load_peer

    if options.threads:
        torch.set_num_threads(options.threads)
    engine = load_engine(
        options.model,
        device=options.device,
        dtype=options.dtype,
        kernels=options.kernels,
        quantize=options.quantize,
    )
    inputs = Inputs(engine)
    case = Case(options.task, options.batch, options.prompt_tokens, options.tokens)
    wanted = () if options.peer == "none" else PEERS if options.peer == "all" else (options.peer,)
    peers: list[Contender] = []
    if wanted:
        model = load_peer(options.model, engine.model.dtype, engine.model.device)
        made: dict[str, type[Transformers | OfficialStyle]] = {
            "transformers": Transformers,
            "official-style": OfficialStyle,
        }
        peers = [made[name](model, inputs) for name in wanted]
    return compare(case, [Ours(engine, inputs), *peers], options.rounds)


if __name__ == "__main__":
    sys.exit(main())
