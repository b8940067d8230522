"""The engine beside what people would otherwise run: python -m janus_core.bench, or `janus bench engine`."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from janus_core.bench.cases import Case, CaseInvalid, Contender
from janus_core.errors import JanusCoreError

PEERS = ("transformers", "official-style")
SHAPES = ("tiny", "narrow", "tiny-flow", "janus-pro-1b", "janus-pro-7b", "janusflow-1.3b")
TASKS = ("caption", "generate", "mixed", "encode", "decode")


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        with _folder(options) as folder:
            figures = _run(options, folder)
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
    if "roofline" not in figures:
        return _tabulate_parts(figures)
    lines = [f"{'':16}{'first token':>14}{'a step':>12}{'an hour':>10}{'we are faster':>28}{'equal tokens':>15}"]
    for name, times in figures["contenders"].items():
        line = f"{name:16}{times['first_seconds']:12.3f} s{times['step_ms']:9.2f} ms{times['answers_per_hour']:10.1f}"
        if against := figures["against"].get(name):
            line += f"{_ratio(against['step']):>28}{against['equal_tokens']:>14.0%}"
        lines.append(line)
    roofline = figures["roofline"]
    lines += [
        f"the machine: {roofline['bandwidth_gb_per_second']:.0f} GB/s, "
        f"{roofline['matrix_gflop_per_second']:.0f} GFLOP/s",
        f"a step: {roofline['step_gb']:.2f} GB, {roofline['step_gflop']:.0f} GFLOP; "
        f"{roofline['step']['median']:.0%} of the roofline",
        f"prompts: {roofline['first_gflop']:.0f} GFLOP; {roofline['first']['median']:.0%} of the roofline",
        f"peak memory of all together {figures['peak_gb']:.1f} GB",
    ]
    return lines


def _tabulate_parts(figures: dict[str, Any]) -> list[str]:
    lines = [f"{'':16}{'seconds':>12}{'we are faster':>28}{'difference':>15}{'equal tokens':>15}"]
    for name, times in figures["contenders"].items():
        line = f"{name:16}{times['seconds']:12.3f}"
        if against := figures["against"].get(name):
            difference = f"{against['difference']:.1e}" if "difference" in against else ""
            equal = f"{against['equal_tokens']:.0%}" if "equal_tokens" in against else ""
            line += f"{_ratio(against['whole']):>28}{difference:>15}{equal:>15}"
        lines.append(line)
    return lines


def _ratio(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.2f}x ({ratio['least']:.2f} to {ratio['most']:.2f})"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="janus bench engine", description="Measure the engine beside its peers.")
    parser.add_argument("--model", type=Path, help="a checkpoint folder in the Hugging Face layout")
    parser.add_argument("--shape", choices=SHAPES, help="random weights in a temporary folder; in place of a model")
    parser.add_argument("--task", choices=TASKS, default="generate")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--prompt-tokens", type=int, default=276)
    parser.add_argument("--tokens", type=int, default=32, help="steps measured in each round")
    parser.add_argument("--answer-tokens", type=int, help="of an answer, for what is done in an hour")
    parser.add_argument("--peer", choices=(*PEERS, "all", "none"), default="all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--kernels", choices=("auto", "plain", "packed", "compiled"), default="auto")
    parser.add_argument("--quantize", choices=("none", "int8"), default="none")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", action="store_true")
    return parser


@contextmanager
def _folder(options: argparse.Namespace) -> Iterator[Path]:
    """The checkpoint to measure; one of random weights is gone afterwards. Refuses what cannot be measured."""
    if (options.model is None) == (options.shape is None):
        raise CaseInvalid("name either --model, a checkpoint folder, or --shape, of random weights")
    if options.peer == "official-style" and options.task not in ("caption", "generate"):
        raise CaseInvalid(f"the published loop has no {options.task} of its own; compare with transformers")
    if options.model is not None:
        yield options.model
        return
    from janus_core.checkpoints.random import SHAPES as CONFIGS
    from janus_core.checkpoints.random import write_random_checkpoint

    with tempfile.TemporaryDirectory(prefix="janus-bench-") as folder:
        yield write_random_checkpoint(Path(folder) / options.shape, CONFIGS[options.shape])


def _run(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    import torch

    from janus_core import load_engine
    from janus_core.bench.compare import compare
    from janus_core.bench.flow import compare_flow
    from janus_core.bench.inputs import Inputs
    from janus_core.bench.mixed import compare_mixed
    from janus_core.bench.ours import Ours
    from janus_core.bench.parts import compare_parts
    from janus_core.bench.peers import OfficialStyle, Transformers, load_peer
    from janus_core.bench.roofline import Prober, needs
    from janus_core.models.janusflow import JanusFlow

    if options.threads:
        torch.set_num_threads(options.threads)
    engine = load_engine(
        folder, device=options.device, dtype=options.dtype, kernels=options.kernels, quantize=options.quantize
    )
    inputs = Inputs(engine)
    counted = engine.painter.num_positions if options.task == "generate" else options.tokens
    case = Case(options.task, options.batch, options.prompt_tokens, options.tokens, options.answer_tokens or counted)
    wanted = () if options.peer == "none" else PEERS if options.peer == "all" else (options.peer,)
    if isinstance(engine.model, JanusFlow):
        figures = compare_flow(case, engine, inputs, folder, wanted, options.rounds)
        return figures | {"peak_gb": _peak_bytes(engine.model.device) / 1e9}
    model = load_peer(folder, engine.model.dtype, engine.model.device) if wanted else None
    if case.task in ("encode", "decode"):
        figures = compare_parts(case, engine, inputs, model, options.rounds)
    elif case.task == "mixed":
        figures = compare_mixed(case, engine, inputs, model, options.rounds)
    else:
        made: dict[str, type[Transformers | OfficialStyle]] = {
            "transformers": Transformers,
            "official-style": OfficialStyle,
        }
        peers: list[Contender] = [made[name](model, inputs) for name in wanted]
        prober = Prober(engine.model.dtype, engine.model.device)
        least = needs(engine, case, inputs.prompt_tokens(case))
        figures = compare(case, [Ours(engine, inputs), *peers], options.rounds, probe=prober, least=least)
    figures["peak_gb"] = _peak_bytes(engine.model.device) / 1e9
    return figures


def _peak_bytes(device: Any) -> int:
    """Of this process, everybody in it together."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    sys.exit(main())
