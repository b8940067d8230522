"""JanusFlow's checkpoints with their VAE: written, read, and refused with the reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from janus_core import load_engine
from janus_core.checkpoints.config_json import read_config
from janus_core.checkpoints.load import build_empty, load_model
from janus_core.checkpoints.random import tiny_flow_config, write_random_checkpoint
from janus_core.checkpoints.save import save_checkpoint
from janus_core.configs import JANUSFLOW_1_3B, SDXL_VAE, JanusFlowConfig
from janus_core.errors import ConfigInvalid, KeysMismatch, TokenizerInvalid, WeightsNotFound
from janus_core.models.janusflow import JanusFlow
from janus_core.models.vae import build_vae, load_vae
from janus_core.processing import chat
from janus_core.processing.tokenizer import Tokenizer

from .conftest import GOLDEN_FLOW
from .test_flow_batches import other_config

CPU = torch.device("cpu")


def equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.named_parameters(), other.named_parameters(), strict=True)
    return all(name == name2 and torch.equal(value, value2) for (name, value), (name2, value2) in pairs)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the golden checkpoint that a test may spoil."""
    return Path(shutil.copytree(GOLDEN_FLOW / "model", tmp_path / "model"))


@pytest.mark.parametrize("config", [tiny_flow_config(), other_config()], ids=["tiny", "other"])
@pytest.mark.parametrize("weights", ["safetensors", "bin"])
def test_what_is_written_is_read(tmp_path: Path, config: JanusFlowConfig, weights: Any) -> None:
    for name, shard_bytes in (("one", 10**9), ("several", 300_000)):
        write_random_checkpoint(tmp_path / name, config, weights=weights, max_shard_bytes=shard_bytes, dtype="float32")
        assert (len(list((tmp_path / name).glob(f"*.{weights}"))) > 1) == (name == "several")
        assert read_config(tmp_path / name)[:2] == (config, "official")
    one, several = (load_model(tmp_path / name, CPU, None) for name in ("one", "several"))
    assert equal(one, several)
    save_checkpoint(one, tmp_path / "again", processing_from=tmp_path / "one", weights=weights)
    assert equal(load_model(tmp_path / "again", CPU, None), one)
    assert equal(*(load_vae(tmp_path / name / "vae", CPU, torch.float32) for name in ("one", "again")))


def test_the_golden_model_comes_back_bit_for_bit(tmp_path: Path) -> None:
    model = load_model(GOLDEN_FLOW / "model", CPU, None)
    assert model.dtype == torch.bfloat16
    save_checkpoint(model, tmp_path, processing_from=GOLDEN_FLOW / "model")
    assert equal(load_model(tmp_path, CPU, None), model)
    saved, published = (load_file(path / "model.safetensors") for path in (tmp_path, GOLDEN_FLOW / "model"))
    assert {name: tensor.shape for name, tensor in saved.items()} == {n: t.shape for n, t in published.items()}
    assert read_config(tmp_path)[0] == read_config(GOLDEN_FLOW / "model")[0]


def test_a_vae_of_ones_own_is_saved_with_the_model(tmp_path: Path) -> None:
    source = write_random_checkpoint(tmp_path / "source", tiny_flow_config())
    model = load_model(source, CPU, None)
    assert isinstance(model, JanusFlow)
    vae = build_vae(model.config.vae).eval()
    save_checkpoint(model, tmp_path / "own", processing_from=source, vae=vae)
    loaded = load_vae(tmp_path / "own" / "vae", CPU, torch.float32)
    assert equal(loaded, vae)
    assert len({path.stat().st_mode for path in (tmp_path / "own" / "vae").iterdir()}) == 1
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    loaded.save(tmp_path / "own" / "vae")
    assert str(tmp_path) not in (tmp_path / "own" / "vae" / "config.json").read_text(encoding="utf-8")
    assert load_engine(tmp_path / "own", device="cpu").info.family == "janusflow"
    with pytest.raises(ConfigInvalid, match="official layout"):
        save_checkpoint(model, tmp_path / "hf", processing_from=source, layout="hf")


def test_published_sizes() -> None:
    config = JANUSFLOW_1_3B
    assert (config.latent_shape, config.grid_side, config.num_latent_tokens) == ((4, 48, 48), 24, 576)
    parameters = sum(parameter.numel() for parameter in build_empty(config).parameters())
    assert parameters == 2_033_772_304, "the published 2,046,367,504 without the pooling head of the tower"
    with torch.device("meta"):
        vae = build_vae(SDXL_VAE)
    assert sum(parameter.numel() for parameter in vae.parameters()) == 83_653_863
    assert (SDXL_VAE.downsampling, vae.scaling_factor) == (8, 0.13025)


def test_a_config_that_says_little_means_the_published_classes(folder: Path) -> None:
    """Their defaults, not the published sizes: kernel 7, stride 4, and a padding that follows from both."""
    path = folder / "config.json"
    raw = json.loads(path.read_text())
    raw["vision_und_enc_config"]["params"]["image_size"] = 128
    raw["vision_gen_enc_config"]["params"] = {"input_channels": 4, "block_out_channels": [32], "hidden_size": 64}
    raw["vision_gen_dec_config"]["params"] |= {"upsamples": 2}
    path.write_text(json.dumps(raw))
    config = read_config(folder)[0]
    assert isinstance(config, JanusFlowConfig)
    uvit = config.uvit
    assert (uvit.kernel_size, uvit.stride, uvit.padding, uvit.num_encoder_blocks) == (7, 4, 3, 2)
    assert (config.latent_side, config.grid_side) == (16, 4)


def spoil(*path: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    def change(raw: dict[str, Any]) -> None:
        for key in path:
            raw = raw[key]
        raw.update(values)

    return change


@pytest.mark.parametrize(
    ("word", "file", "change"),
    [
        ("hidden_size", "config.json", spoil("vision_gen_enc_config", "params", hidden_size=65)),
        ("out_channels", "config.json", spoil("vision_gen_dec_config", "params", out_channels=3)),
        ("decoder's width", "config.json", spoil("vision_gen_dec_config", "params", block_out_channels=[48])),
        ("use_bias", "config.json", spoil("vision_gen_enc_config", "params", use_bias=False)),
        ("4 cells of 8 latents", "config.json", spoil("vision_gen_dec_config", "params", upsamples=2)),
        ("cannot draw 60 px", "config.json", spoil("vision_und_enc_config", "params", image_size=60)),
        ("lacks or garbles", "config.json", spoil(vision_und_enc_config={})),
        ("number of channels", "vae/config.json", spoil(latent_channels=16)),
        ("shift_factor", "vae/config.json", spoil(shift_factor=0.5)),
        ("no config of an AutoencoderKL", "vae/config.json", spoil(block_out_channels=None)),
    ],
)
def test_parts_that_do_not_go_together_are_refused(
    folder: Path, word: str, file: str, change: Callable[[dict[str, Any]], None]
) -> None:
    raw = json.loads((folder / file).read_text())
    change(raw)
    (folder / file).write_text(json.dumps(raw))
    with pytest.raises(ConfigInvalid, match=word):
        read_config(folder)


def test_without_a_vae_it_says_where_to_get_one(folder: Path) -> None:
    shutil.rmtree(folder / "vae")
    with pytest.raises(ConfigInvalid, match=r"stabilityai/sdxl-vae"):
        load_engine(folder, device="cpu")


def test_a_vae_with_other_tensors_is_refused_and_each_is_named(folder: Path) -> None:
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    del tensors["quant_conv.bias"]
    tensors["post_quant_conv.weight"] = torch.zeros(5, 5)
    tensors["another"] = torch.zeros(2)
    save_file(tensors, path)
    with pytest.raises(KeysMismatch) as caught:
        load_engine(folder, device="cpu")
    assert caught.value.missing == ("quant_conv.bias",)
    assert caught.value.unexpected == ("another",)
    assert caught.value.misshaped == ("post_quant_conv.weight [5, 5] instead of [4, 4, 1, 1]",)
    path.write_bytes(b"cut off")
    with pytest.raises(WeightsNotFound, match="vae"):
        load_engine(folder, device="cpu")
    path.unlink()
    with pytest.raises(WeightsNotFound, match="vae"):
        load_engine(folder, device="cpu")


def test_marks_that_the_tokenizer_lacks_are_added_in_the_published_order(folder: Path) -> None:
    path = folder / "tokenizer.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    kept = [token for token in raw["added_tokens"] if token["content"] not in chat.FLOW_MARKS]
    path.write_text(json.dumps(raw | {"added_tokens": kept}), encoding="utf-8")
    with pytest.raises(TokenizerInvalid, match="<begin_of_image>"):
        Tokenizer.from_folder(folder)
    tokenizer = Tokenizer.from_folder(folder, adds=chat.FLOW_MARKS)
    ids = tokenizer.encode("".join(chat.FLOW_MARKS))[1:]
    assert ids == list(range(ids[0], ids[0] + 4))
    assert [tokenizer.image_id, tokenizer.image_start_id, tokenizer.image_end_id] == [ids[0], ids[2], ids[3]]
    assert load_engine(folder, device="cpu").tokenizer.image_end_id == ids[3]
