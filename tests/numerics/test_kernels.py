"""The fast step is the plain one: in float32 to rounding, in bfloat16 as close to float32 as the plain one is."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from janus_core import Caption, CaptionRequest, Engine, GeneratedImage, GenerateRequest, load_engine
from janus_core.checkpoints.random import write_random_checkpoint
from janus_core.engine import packing
from janus_core.engine.batcher import lay_out
from janus_core.engine.compiling import compiled_kernels
from janus_core.engine.int8 import Int8Linear
from janus_core.engine.packing import KernelChoice, PackedLinear, packs_bfloat16
from janus_core.engine.rows import CaptionRow
from janus_core.errors import DeviceUnavailable
from janus_core.models import kernels
from janus_core.models.kernels import Heads, Kernels, use_kernels
from janus_core.models.layers import Linear, rotary_table
from janus_core.models.llama import Layer

from .conftest import DATA

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

NUM_HEADS, SIZE = 6, 16
HEADS = Heads(NUM_HEADS, NUM_HEADS, SIZE)


@pytest.fixture(scope="module")
def compiled() -> Kernels:
    if shutil.which("g++") is None:
        pytest.skip("there is no g++")
    return compiled_kernels()


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", ["rms_norm", "rotated_heads", "gated", "to_bytes", "rescaled"])
def test_compiled_arithmetic_is_the_plain_one(compiled: Kernels, name: str) -> None:
    cos, sin = rotary_table(40, SIZE, 10000.0, torch.device("cpu"))
    given: dict[str, list[tuple[Any, ...]]] = {
        "rms_norm": [(noise(rows, 64), noise(64, seed=1), 1e-6) for rows in (1, 2, 7)],
        "rotated_heads": [
            (noise(rows, 40, 3 * NUM_HEADS * SIZE), cos[None, None], sin[None, None], HEADS) for rows in (1, 3)
        ],
        "gated": [(noise(rows, 64),) for rows in (1, 2, 7)],
        "to_bytes": [(noise(rows, 64),) for rows in (1, 2, 7)],
        "rescaled": [(noise(rows, 64), noise(rows, 1, seed=1), noise(64, seed=2)) for rows in (1, 2, 7)],
    }
    for arguments in given[name]:
        with torch.inference_mode():
            ours, plain = getattr(compiled, name)(*arguments), getattr(kernels.PLAIN, name)(*arguments)
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("num_rows", "num_heads", "num_kv_heads"), [(1, 6, 6), (2, 6, 2), (5, 6, 6)])
def test_the_newest_token_sees_its_own_row_up_to_itself(
    compiled: Kernels, num_rows: int, num_heads: int, num_kv_heads: int
) -> None:
    cos, sin = rotary_table(64, SIZE, 10000.0, torch.device("cpu"))
    positions = torch.tensor([11, 0, 30, 17, 5][:num_rows])
    num_seen = int(positions.max()) + 1
    heads = Heads(num_heads, num_kv_heads, SIZE)
    qkv = noise(num_rows, (num_heads + 2 * num_kv_heads) * SIZE)
    held = noise(2, 8, num_kv_heads, 64, SIZE, seed=1)
    arguments = (qkv, cos[positions], sin[positions])
    ours_k, ours_v = held.clone()
    with torch.inference_mode():
        mixed = compiled_newest(compiled)(*arguments, ours_k, ours_v, positions, num_seen, heads)
    angles = cos[positions][:, None, None], sin[positions][:, None, None]
    q, k, v = kernels.rotated_heads(qkv[:, None], *angles, heads)
    keys, values = held.clone()
    keys[torch.arange(num_rows), :, positions], values[torch.arange(num_rows), :, positions] = k[:, :, 0], v[:, :, 0]
    mask = torch.arange(num_seen)[None] <= positions[:, None]
    seen = (tensor[:num_rows, :, :num_seen] for tensor in (keys, values))
    wanted = kernels.attend(q, *seen, mask[:, None, None], False)[:, 0]
    torch.testing.assert_close(mixed, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close((ours_k, ours_v), (keys, values), rtol=1e-6, atol=1e-6)


def compiled_newest(compiled: Kernels) -> Any:
    assert compiled.attend_newest is not None
    return compiled.attend_newest


@pytest.mark.parametrize("num_tokens", [3, 256, 300, 577])
@pytest.mark.parametrize("kind", ["all", "causal", "masked"])
def test_attention_in_parts_is_attention(compiled: Kernels, kind: str, num_tokens: int) -> None:
    q, k, v = noise(3, 2, NUM_HEADS, num_tokens, SIZE)
    if kind == "masked":
        k, v = noise(2, 2, NUM_HEADS, num_tokens + 9, SIZE, seed=1)
    mask = noise(2, 1, num_tokens, num_tokens + 9, seed=2) > 0
    mask[..., 0] = True
    given = (q, k, v, mask if kind == "masked" else None, kind == "causal")
    with torch.inference_mode():
        torch.testing.assert_close(compiled.attend(*given), kernels.attend(*given), rtol=1e-4, atol=1e-5)


def test_swish_changes_maps_of_any_layout(compiled: Kernels) -> None:
    for layout in (torch.contiguous_format, torch.channels_last):
        x = noise(2, 8, 5, 7).contiguous(memory_format=layout)
        wanted = kernels.swish(x)
        with torch.inference_mode():
            ours = compiled.swish(x)
        assert ours.data_ptr() == x.data_ptr()
        torch.testing.assert_close(ours, wanted)


def linear(dtype: torch.dtype, bias: bool = True) -> Linear:
    made = Linear(96, 80, bias=bias)
    made.weight.data, made.bias.data = noise(80, 96, seed=3) / 10, noise(80, seed=4) if bias else None
    return made.to(dtype).requires_grad_(False)


@pytest.mark.skipif(not packs_bfloat16(), reason="this processor packs no bfloat16")
def test_a_packed_product_rounds_once() -> None:
    plain = linear(torch.bfloat16)
    packed, x, residual = PackedLinear(plain), noise(5, 96).bfloat16(), noise(5, 80, seed=1).bfloat16()
    exact = x.double() @ plain.weight.double().T + plain.bias.double()
    step = 2**-8
    torch.testing.assert_close(packed(x).double(), exact, rtol=step, atol=1e-5)
    torch.testing.assert_close(packed.gelu(x).double(), torch.nn.functional.gelu(exact), rtol=step, atol=1e-3)
    torch.testing.assert_close(packed.add_to(residual, x).double(), residual.double() + exact, rtol=step, atol=1e-5)


@pytest.mark.skipif(not torch.cpu._is_vnni_supported(), reason="this processor multiplies no bytes")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_of_bytes_is_exact_and_each_row_its_own(dtype: torch.dtype) -> None:
    plain = linear(dtype)
    small, x = Int8Linear(plain), (noise(5, 96) * torch.tensor([1.0, 100, 0.01, 0, 3])[:, None]).to(dtype)
    levels, weight = x.float().abs().amax(1, keepdim=True).clamp_min(1e-12) / 127, plain.weight.float()
    scales = weight.abs().amax(1) / 127
    rounded = (x.float() / levels).round().double(), (weight / scales[:, None]).round().double()
    products = rounded[0] @ rounded[1].T * scales.double() * levels.double()
    exact = products + plain.bias.double()
    step = 2**-8 if dtype == torch.bfloat16 else 1e-6
    assert bool(((small(x).double() - exact).abs() <= step * (products.abs() + exact.abs()) + 1e-6).all())
    for n in range(5):
        assert torch.equal(small(x[n : n + 1]), small(x)[n : n + 1])
    true = x.double() @ plain.weight.double().T + plain.bias.double()
    assert float((small(x).double() - true).norm() / true.norm()) < 0.01


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("kernels") / "tiny", seed=1)


def answers(engine: Engine) -> list[tuple[int, ...]]:
    """Tokens of captions, greedy and sampled, and codes of drawings, of different lengths."""
    rng, dice = np.random.default_rng(0), random.Random(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (50, 60, 3), dtype=np.uint8)) for _ in range(6)]
    captions = engine.caption(
        [
            CaptionRequest(picture, "and " * dice.randrange(1, 20), 3 + 2 * n, temperature=n % 2, seed=n)
            for n, picture in enumerate(pictures)
        ]
    )
    drawings = engine.generate(
        [GenerateRequest("a b " * (n + 1), guidance=dice.choice((1.0, 5.0)), seed=n) for n in range(4)]
    )
    found: list[tuple[int, ...]] = []
    for answer in (*captions, *drawings):
        assert isinstance(answer, Caption | GeneratedImage), answer
        tokens = answer.token_ids if isinstance(answer, Caption) else answer.codes
        assert tokens
        found.append(tokens)
    return found


@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("is_wide", [False, True])
def test_in_float32_a_compiled_engine_gives_the_same_tokens(folder: Path, is_wide: bool) -> None:
    """Layer by layer; and as wide models do it, where float32 has nothing to pack but its kernels are compiled."""
    plain, fast = (load_engine(folder, device="cpu", dtype="float32", kernels=which) for which in ("plain", "compiled"))
    if is_wide:
        use_kernels(fast.model, compiled_kernels())
        fast.model.llama.newest_through = Layer.newest
    assert fast.model.llama.kernels is not kernels.PLAIN
    assert answers(fast) == answers(plain)


@torch.inference_mode()
@pytest.mark.usefixtures("compiled")
def test_programs_serve_every_size_without_end() -> None:
    """Rows as many as heads, as slots, one, and pools of other sizes: none of them falls back to the plain function."""
    program = compiled_kernels().attend_newest
    assert program is not None
    cos, sin = rotary_table(64, SIZE, 10000.0, torch.device("cpu"))
    heads = Heads(4, 4, SIZE)

    def run(num_slots: int, capacity: int, num_rows: int) -> None:
        keys, values = noise(2, num_slots, heads.num_keys, capacity, SIZE)
        qkv, positions = noise(num_rows, 3 * heads.num_queries * SIZE), torch.arange(num_rows)
        program(qkv, cos[positions], sin[positions], keys, values, positions, num_rows + 1, heads)

    for pool in ((16, 32), (8, 64), (4, 48)):
        for num_rows in (pool[0], 1, 3, 2):
            run(*pool, num_rows)
    with torch.compiler.set_stance("fail_on_recompile"):
        run(8, 64, 5)
        run(16, 32, 9)


@torch.inference_mode()
def hidden_of(engine: Engine, picture: Image.Image) -> Tensor:
    """Of a question's tokens in one pass, and of the first token behind it as the engine's own lane runs it."""
    model, request = engine.model, CaptionRequest(picture, "What is this?", 2)
    row = engine.prepare(request)
    assert isinstance(row, CaptionRow)
    laid = lay_out([row.ids], 0, model.device)
    features = model.embed_images(row.pixels.to(model.dtype))
    seen = [model.llama(model.embed_prompt(laid.ids, engine.tokenizer.image_id, features), laid.step)]
    hook = model.llama.register_forward_hook(lambda _, __, hidden: seen.append(hidden))
    engine.caption([request])
    hook.remove()
    return torch.cat([hidden.flatten(0, -2).float() for hidden in seen])


@pytest.mark.skipif(not packs_bfloat16(), reason="this processor packs no bfloat16")
@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("which", ["packed", "compiled", "packed and compiled"])
def test_bfloat16_is_as_close_to_float32_as_the_plain_one(
    pictures: list[Image.Image], which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = DATA / "janus-pro" / "model"
    exact = hidden_of(load_engine(model, device="cpu", dtype="float32"), pictures[0])
    if which == "packed and compiled":
        monkeypatch.setattr(packing, "_PACKED_FROM", 0)
    choices: tuple[KernelChoice, KernelChoice] = ("plain", "packed" if which == "packed" else "compiled")
    engines = [load_engine(model, device="cpu", dtype="bfloat16", kernels=choice) for choice in choices]
    plain, fast = (float((hidden_of(engine, pictures[0]) - exact).norm() / exact.norm()) for engine in engines)
    assert 0 < fast < 1.2 * plain


@pytest.mark.skipif(not torch.cpu._is_vnni_supported(), reason="this processor multiplies no bytes")
@pytest.mark.parametrize(
    ("choice", "dtype", "head"), [("plain", "float32", Linear), ("compiled", "bfloat16", PackedLinear)]
)
def test_int8_is_close(pictures: list[Image.Image], choice: KernelChoice, dtype: Any, head: type[Linear]) -> None:
    model = DATA / "janus-pro" / "model"
    exact = hidden_of(load_engine(model, device="cpu", dtype="float32"), pictures[0])
    small = load_engine(model, device="cpu", dtype=dtype, quantize="int8", kernels=choice)
    assert isinstance(small.model.llama.layers[0].mlp.down_proj, Int8Linear)
    assert type(small.model.text_head) is head
    assert 0 < float((hidden_of(small, pictures[0]) - exact).norm() / exact.norm()) < 0.05


def test_int8_names_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    with pytest.raises(DeviceUnavailable, match="VNNI"):
        load_engine(DATA / "janus-pro" / "model", device="cpu", quantize="int8")


def test_what_runs_by_itself_is_plain_for_small_models_and_packed_frees_what_it_replaces(folder: Path) -> None:
    assert load_engine(folder, device="cpu").model.llama.kernels is kernels.PLAIN
    packed = load_engine(folder, device="cpu", kernels="packed").model
    kinds = {type(module) for module in packed.modules() if isinstance(module, Linear)}
    assert kinds == {PackedLinear if packs_bfloat16() else Linear}
    exact = load_engine(folder, device="cpu", dtype="float32", kernels="packed").model
    assert {type(module) for module in exact.modules() if isinstance(module, Linear)} == {Linear}


def test_without_a_compiler_it_runs_and_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(*_: object, **__: object) -> Any:
        def fail(*_: object) -> None:
            raise RuntimeError("no compiler")

        return fail

    monkeypatch.setattr(torch, "compile", missing)
    engine = load_engine(folder, device="cpu", kernels="compiled")
    assert engine.model.llama.kernels is kernels.PLAIN
    assert "g++" in caplog.text
