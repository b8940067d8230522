"""Every form of a checkpoint loads the same; what does not fit is named."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from janus_core import GeneratedImage, GenerateRequest, load_engine
from janus_core.checkpoints.config_json import Drawing, read_config, read_drawing
from janus_core.checkpoints.keymaps import pieces, unused_official
from janus_core.checkpoints.load import Model, build_empty, load_model
from janus_core.checkpoints.random import tiny_config, write_random_checkpoint
from janus_core.checkpoints.save import save_checkpoint
from janus_core.configs import JANUS_PRO_1B, JANUSFLOW_1_3B, Layout, ModelConfig
from janus_core.errors import (
    CheckpointError,
    ConfigInvalid,
    DeviceUnavailable,
    KeysMismatch,
    TokenizerInvalid,
    WeightsNotFound,
)
from janus_core.models.janus import Janus
from janus_core.processing.tokenizer import Tokenizer

from .conftest import GOLDEN, published_keys

CPU = torch.device("cpu")


def equal(one: Janus, other: Janus) -> bool:
    pairs = zip(one.named_parameters(), other.named_parameters(), strict=True)
    return all(name == name2 and torch.equal(value, value2) for (name, value), (name2, value2) in pairs)


@pytest.fixture(scope="module")
def tiny() -> Janus:
    return build_empty(tiny_config())


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Janus:
    return load_model(write_random_checkpoint(tmp_path_factory.mktemp("reference")), CPU, None)


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """A copy of the golden checkpoint that a test may spoil."""
    return Path(shutil.copytree(GOLDEN / "model", tmp_path / "model"))


@pytest.mark.parametrize(
    ("layout", "weights", "shard_bytes"),
    list(itertools.product(("hf", "official"), ("safetensors", "bin"), (10**9, 3_000_000))),
)
def test_every_form_loads_equal(
    tmp_path: Path, reference: Janus, layout: Layout, weights: str, shard_bytes: int
) -> None:
    write_random_checkpoint(tmp_path, layout=layout, weights=weights, max_shard_bytes=shard_bytes)  # type: ignore[arg-type]
    assert (len(list(tmp_path.glob(f"*.{weights}"))) > 1) == (shard_bytes < 10**9)
    assert read_config(tmp_path)[:2] == (tiny_config(), layout)
    loaded = load_model(tmp_path, CPU, None)
    assert loaded.dtype == torch.bfloat16
    assert equal(loaded, reference)


@pytest.mark.parametrize("layout", ["hf", "official"])
@pytest.mark.parametrize("weights", ["safetensors", "bin"])
def test_saved_golden_model_comes_back_bit_for_bit(tmp_path: Path, layout: Layout, weights: str) -> None:
    model = load_model(GOLDEN / "model", CPU, None)
    save_checkpoint(model, tmp_path, processing_from=GOLDEN / "model", layout=layout, weights=weights)  # type: ignore[arg-type]
    assert equal(load_model(tmp_path, CPU, None), model)
    if layout == "official":
        published = load_file(GOLDEN / "model" / "model.safetensors").keys()
        saved = load_model_keys(tmp_path, weights)
        assert saved == set(published)


def load_model_keys(folder: Path, weights: str) -> set[str]:
    if weights == "bin":
        return set(torch.load(folder / "pytorch_model.bin", weights_only=True))
    return set(load_file(folder / "model.safetensors"))


@pytest.mark.parametrize(
    ("config", "layout", "name"),
    [
        (JANUS_PRO_1B, "hf", "hf_1b"),
        (JANUS_PRO_1B, "official", "original_1b"),
        (JANUSFLOW_1_3B, "official", "original_flow"),
    ],
)
def test_names_and_shapes_of_published_models(config: ModelConfig, layout: Layout, name: str) -> None:
    model: Model = build_empty(config)
    shapes = {key: tuple(parameter.shape) for key, parameter in model.named_parameters()}
    ours = {piece.name: piece.shape for piece in pieces(config, shapes, layout)}
    if layout == "official":
        ours |= unused_official(config)
    assert ours == published_keys(name)


def test_every_parameter_is_filled(tiny: Janus) -> None:
    shapes = {key: tuple(parameter.shape) for key, parameter in tiny.named_parameters()}
    layouts: tuple[Layout, ...] = ("hf", "official")
    for layout in layouts:
        filled = dict.fromkeys(shapes, 0)
        for piece in pieces(tiny.config, shapes, layout):
            assert piece.first_row == filled[piece.target]
            filled[piece.target] += piece.num_rows
        assert filled == {name: shape[0] for name, shape in shapes.items()}


def test_missing_unexpected_and_misshaped_tensors_are_named(official: Path) -> None:
    tensors = load_file(official / "model.safetensors")
    del tensors["language_model.lm_head.weight"], tensors["vision_model.vision_tower.blocks.1.attn.qkv.bias"]
    tensors["language_model.model.layers.7.mlp.up_proj.weight"] = torch.zeros(2, 2)
    tensors["gen_embed.weight"] = torch.zeros(128, 9)
    tensors["language_model.model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(8)  # known, and ignored
    save_file(tensors, official / "model.safetensors")
    with pytest.raises(KeysMismatch) as caught:
        load_model(official, CPU, None)
    error = caught.value
    assert error.missing == ("language_model.lm_head.weight", "vision_model.vision_tower.blocks.1.attn.qkv.bias")
    assert error.unexpected == ("language_model.model.layers.7.mlp.up_proj.weight",)
    assert error.misshaped == ("gen_embed.weight [128, 9] instead of [128, 8]",)
    for name in (*error.missing, *error.unexpected, *error.misshaped):
        assert name in str(error)


def test_weights_that_are_absent_or_cut_off(official: Path) -> None:
    whole = (official / "model.safetensors").read_bytes()
    (official / "model.safetensors").write_bytes(whole[:5000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_model(official, CPU, None)
    (official / "model.safetensors").unlink()
    with pytest.raises(WeightsNotFound, match=r"pytorch_model\.bin"):
        load_model(official, CPU, None)
    (official / "pytorch_model.bin").write_bytes(b"no pickle at all")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
        load_model(official, CPU, None)
    index = {"weight_map": {"a": "pytorch_model-00001-of-00002.bin"}}
    (official / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsNotFound, match="00001-of-00002"):
        load_model(official, CPU, None)


def test_a_pickle_that_would_run_code_is_refused(official: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (print, ("ran",))

    (official / "model.safetensors").unlink()
    torch.save({"a": Harm()}, official / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="plain tensors"):
        load_model(official, CPU, None)


def test_configs_that_are_refused(official: Path) -> None:
    path = official / "config.json"
    raw = json.loads(path.read_text())
    spoiled = {
        "model_type": raw | {"model_type": "llava"},
        "rope scaling": raw | {"language_config": raw["language_config"] | {"rope_scaling": {"type": "linear"}}},
        "lacks": {key: value for key, value in raw.items() if key != "gen_head_config"},
    }
    for word, content in spoiled.items():
        path.write_text(json.dumps(content))
        with pytest.raises(ConfigInvalid, match=word):
            read_config(official)
    path.write_text("{")
    with pytest.raises(ConfigInvalid, match="not JSON"):
        read_config(official)


def test_levels_without_blocks_cannot_change_the_width(tmp_path: Path) -> None:
    write_random_checkpoint(tmp_path, tiny_config(), layout="hf", dtype=torch.float32, seed=1)
    path = tmp_path / "config.json"
    raw = json.loads(path.read_text())
    raw["vq_config"] |= {"num_res_blocks": 0, "channel_multiplier": [1, 1, 2]}
    path.write_text(json.dumps(raw))
    with pytest.raises(ConfigInvalid, match="without residual blocks"):
        read_config(tmp_path)


def test_published_configs_are_partial(official: Path) -> None:
    """The 7B's language_config says next to nothing: the rest is what LlamaConfig assumes."""
    path = official / "config.json"
    raw = json.loads(path.read_text())
    raw["language_config"] = {"model_type": "llama", "num_hidden_layers": 30, "vocab_size": 102400}
    raw["vision_config"]["params"] = {"image_size": 384, "model_name": "siglip_large_patch16_384", "select_layer": -1}
    raw["gen_vision_config"]["params"] = {"image_token_size": 16384, "n_embed": 8}
    path.write_text(json.dumps(raw))
    config = read_config(official)[0]
    assert (config.llama.hidden_size, config.llama.intermediate_size, config.llama.head_size) == (4096, 11008, 128)
    assert (config.llama.num_kv_heads, config.llama.rope_theta, config.llama.norm_eps) == (32, 10000.0, 1e-6)
    assert (config.siglip, config.vq) == (JANUS_PRO_1B.siglip, JANUS_PRO_1B.vq)


def test_parts_that_do_not_go_together_are_refused_on_loading(official: Path) -> None:
    path = official / "preprocessor_config.json"
    raw = json.loads(path.read_text())
    path.write_text(json.dumps(raw | {"image_size": 96}))
    with pytest.raises(ConfigInvalid, match="96 px"):
        load_engine(official, device="cpu")
    path.write_text(json.dumps(raw))
    tokenizer = json.loads((official / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["model"]["vocab"] |= {f"<{n}>": 320 + n for n in range(100)}
    (official / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(TokenizerInvalid, match="384 embedded"):
        load_engine(official, device="cpu")


def test_device_and_dtype_that_are_not_there(official: Path) -> None:
    for options in ({"device": "abacus"}, {"device": "cpu", "dtype": "float16"}):
        with pytest.raises(DeviceUnavailable):
            load_engine(official, **options)  # type: ignore[arg-type]


def test_tokenizer_adds_the_image_mark_and_insists_on_the_others(official: Path) -> None:
    path = official / "tokenizer.json"
    raw = json.loads(path.read_text(encoding="utf-8"))

    def without(content: str) -> None:
        kept = [token for token in raw["added_tokens"] if token["content"] != content]
        path.write_text(json.dumps(raw | {"added_tokens": kept}), encoding="utf-8")

    without("<image_placeholder>")
    tokenizer = Tokenizer.from_folder(official)
    ids = tokenizer.encode("a <image_placeholder> b")
    assert ids.count(tokenizer.image_id) == 1
    without("<begin_of_image>")
    with pytest.raises(TokenizerInvalid, match="<begin_of_image>"):
        Tokenizer.from_folder(official)
    path.unlink()
    with pytest.raises(TokenizerInvalid, match=r"tokenizer\.json"):
        Tokenizer.from_folder(official)


@pytest.mark.parametrize("layout", ["hf", "official"])
def test_a_checkpoint_draws_its_own_way_where_nobody_says(tmp_path: Path, layout: Layout) -> None:
    source = write_random_checkpoint(tmp_path / "source", layout=layout)
    (source / "generation_config.json").write_text('{"guidance_scale": 1.5, "temperature": 0.5}')
    saved = tmp_path / "saved"
    save_checkpoint(load_model(source, CPU, None), saved, processing_from=source, layout=layout)
    assert read_drawing(saved) == Drawing(guidance=1.5, temperature=0.5)
    ways = ((None, None), (1.5, 0.5), (5.0, None), (None, 1.0))
    unsaid, same, *others = load_engine(saved, device="cpu").generate(
        [GenerateRequest("a star", guidance=guidance, temperature=temperature) for guidance, temperature in ways]
    )
    assert isinstance(unsaid, GeneratedImage)
    assert unsaid == same
    assert unsaid not in others


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"guidance_scale": "much"}', '{"guidance_scale": -1}', '{"temperature": "cool"}']
)
def test_a_garbled_way_of_drawing_is_refused_by_name(tmp_path: Path, text: str) -> None:
    folder = write_random_checkpoint(tmp_path)
    (folder / "generation_config.json").write_text(text)
    with pytest.raises(ConfigInvalid, match=r"generation_config\.json"):
        load_engine(folder, device="cpu")
