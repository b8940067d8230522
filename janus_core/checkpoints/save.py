"""A model to a checkpoint folder, in either layout, one tensor at a time; beside a JanusFlow its VAE.

The Hugging Face layout is what transformers' JanusForConditionalGeneration.from_pretrained reads. Its config says
`tie_word_embeddings: false`: transformers assumes true, and would let the embedding stand for the text head.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from janus_core.checkpoints.config_json import USUAL, Drawing, read_drawing, to_hf, to_official
from janus_core.checkpoints.keymaps import Piece, pieces, unused_official
from janus_core.checkpoints.load import Model
from janus_core.checkpoints.weights import Source, WeightFormat, write_weights
from janus_core.configs import JanusFlowConfig, Layout, ModelConfig
from janus_core.models.vae import Vae
from janus_core.processing import chat
from janus_core.processing.images import ImageSettings, read_image_settings
from janus_core.processing.tokenizer import Tokenizer
from janus_core.registry import VAE_FOLDER

_HF_GUIDANCE = 5  # usual with Janus and Janus-Pro, and transformers is told
MAX_SHARD_BYTES = 5_000_000_000
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")

_HF_TOKENIZER = {
    # transformers' LlamaTokenizer would rebuild the tokenizer, and JanusProcessor asks for these three by name
    "tokenizer_class": "PreTrainedTokenizerFast",
    "extra_special_tokens": {
        "image_token": chat.IMAGE,
        "boi_token": chat.IMAGE_START,
        "eoi_token": chat.IMAGE_END,
    },
}


def save_checkpoint(
    model: Model,
    folder: Path,
    *,
    processing_from: Path,
    vae: Vae | None = None,
    layout: Layout | None = None,
    weights: WeightFormat = "safetensors",
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write a whole checkpoint.

    Args:
        processing_from: the checkpoint folder whose tokenizer, image settings and ways of drawing go with the weights.
        vae: of a JanusFlow; None copies that of `processing_from`.
        layout: None is `default_layout`.
        max_shard_bytes: a larger checkpoint is written as several files with an index.
    """
    layout = layout or default_layout(model.config)
    folder.mkdir(parents=True, exist_ok=True)
    for name in _TOKENIZER_FILES:
        if (processing_from / name).is_file() and processing_from.resolve() != folder.resolve():
            shutil.copyfile(processing_from / name, folder / name)
    if vae is not None:
        vae.save(folder / VAE_FOLDER)
    elif isinstance(model.config, JanusFlowConfig) and processing_from.resolve() != folder.resolve():
        shutil.copytree(processing_from / VAE_FOLDER, folder / VAE_FOLDER, dirs_exist_ok=True)
    parameters = dict(model.named_parameters())
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    images, drawing = read_image_settings(processing_from), read_drawing(processing_from)
    write_description(folder, model.config, images, layout, model.dtype, drawing)
    write_parameters(
        folder, model.config, shapes, parameters.__getitem__, layout, model.dtype, weights, max_shard_bytes
    )


def default_layout(config: ModelConfig) -> Layout:
    """The Hugging Face layout; of JanusFlow the official one, since transformers has no JanusFlow."""
    return "official" if isinstance(config, JanusFlowConfig) else "hf"


def write_description(
    folder: Path,
    config: ModelConfig,
    images: ImageSettings,
    layout: Layout,
    dtype: torch.dtype,
    drawing: Drawing = USUAL,
) -> None:
    """Write config.json and the processor's files; `folder` already holds the tokenizer.

    drawing: the model's own way, where it is not what is usual with its family.
    """
    dtype_name = str(dtype).removeprefix("torch.")
    pixels: dict[str, Any] = {
        "min_size": images.min_size,
        "image_mean": list(images.mean),
        "image_std": list(images.std),
        "rescale_factor": images.rescale_factor,
        "do_normalize": images.normalize,
    }
    if layout == "official":
        _write_json(folder / "config.json", to_official(config, dtype_name))
        _write_json(folder / "preprocessor_config.json", {"image_size": images.image_size, **pixels})
        processor = {"add_special_token": False, "ignore_id": -100, "image_tag": "<image_placeholder>"}
        processor |= {"mask_prompt": True, "num_image_tokens": config.siglip.num_patches, "sft_format": "deepseek"}
        _write_json(folder / "processor_config.json", {**processor, "processor_class": "VLChatProcessor"})
        if own := _drawing_json(drawing):
            _write_json(folder / "generation_config.json", own)
        return
    tokenizer = Tokenizer.from_folder(folder)
    _write_json(folder / "config.json", to_hf(config, dtype_name, tokenizer.image_id))
    size = {"height": images.image_size, "width": images.image_size}
    kind = {"image_processor_type": "JanusImageProcessor", "processor_class": "JanusProcessor"}
    _write_json(folder / "preprocessor_config.json", {**kind, "size": size, "do_rescale": True, **pixels})
    processor = {"processor_class": "JanusProcessor", "num_image_tokens": config.siglip.num_patches}
    _write_json(folder / "processor_config.json", {**processor, "use_default_system_prompt": True})
    settings_path = folder / "tokenizer_config.json"
    settings = json.loads(settings_path.read_text(encoding="utf-8")) if settings_path.is_file() else {}
    _write_json(settings_path, settings | _HF_TOKENIZER)
    _write_json(
        folder / "generation_config.json",
        {
            "bos_token_id": tokenizer.bos_id,
            "eos_token_id": tokenizer.eos_id,
            "pad_token_id": tokenizer.pad_id,
            "guidance_scale": _HF_GUIDANCE,
            **_drawing_json(drawing),
            "generation_kwargs": {"boi_token_id": tokenizer.image_start_id},
        },
    )


def _drawing_json(drawing: Drawing) -> dict[str, float]:
    named = {"guidance_scale": drawing.guidance, "temperature": drawing.temperature}
    return {name: value for name, value in named.items() if value is not None}


def write_parameters(
    folder: Path,
    config: ModelConfig,
    shapes: Mapping[str, tuple[int, ...]],
    get: Callable[[str], Tensor],
    layout: Layout,
    dtype: torch.dtype,
    weights: WeightFormat,
    max_shard_bytes: int,
) -> None:
    """Write the parameters that `get` returns by our names, cut and named as the layout has them."""
    cut = pieces(config, shapes, layout)
    sources = [Source(piece.name, piece.shape, dtype, partial(_cut, get, piece, dtype)) for piece in cut]
    if layout == "official":
        unused = unused_official(config).items()
        sources += [Source(name, shape, dtype, partial(torch.zeros, shape, dtype=dtype)) for name, shape in unused]
    write_weights(folder, sources, weights, max_shard_bytes)


def _cut(get: Callable[[str], Tensor], piece: Piece, dtype: torch.dtype) -> Tensor:
    """Its own memory, so that a pickle holds these rows and not the whole parameter once more."""
    rows = get(piece.target).detach()[piece.first_row : piece.first_row + piece.num_rows]
    return rows.reshape(piece.shape).to(device="cpu", dtype=dtype, copy=True)


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
