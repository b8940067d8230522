"""A checkpoint folder to a model on its device, tensor by tensor.

The model is built without memory, checked against the names and shapes of the files, given memory, and filled: the
peak is the model and one tensor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias, overload

import torch

from janus_core.checkpoints.config_json import read_config
from janus_core.checkpoints.keymaps import Piece, is_ignored, pieces
from janus_core.checkpoints.weights import find_weight_files, list_tensors, read_tensors
from janus_core.configs import JanusConfig, JanusFlowConfig, Layout, ModelConfig
from janus_core.errors import KeysMismatch
from janus_core.models.janus import Janus
from janus_core.models.janusflow import JanusFlow

Model: TypeAlias = Janus | JanusFlow


@overload
def build_empty(config: JanusConfig) -> Janus: ...
@overload
def build_empty(config: JanusFlowConfig) -> JanusFlow: ...
@overload
def build_empty(config: ModelConfig) -> Model: ...
def build_empty(config: ModelConfig) -> Model:
    """A model with shapes and no memory."""
    with torch.device("meta"):
        model = JanusFlow(config) if isinstance(config, JanusFlowConfig) else Janus(config)
        return model.eval().requires_grad_(False)


def load_model(folder: Path, device: torch.device, dtype: torch.dtype | None) -> Model:
    """Load either layout, from safetensors or .bin, single or sharded. JanusFlow's VAE is loaded apart: models/vae.py.

    Args:
        dtype: None keeps that of the checkpoint's text head if it is float32 or bfloat16, and is float32 otherwise.
    Raises:
        ConfigInvalid, WeightsNotFound, CheckpointError.
        KeysMismatch: names every tensor that is missing, unexpected or of another shape, before anything is read.
    """
    config, layout, raw = read_config(folder)
    model = build_empty(config)
    wanted = _wanted_pieces(model, layout)
    files = {path: list_tensors(path) for path in find_weight_files(folder)}
    found = {name: shape for shapes in files.values() for name, shape in shapes.items() if not is_ignored(name)}
    if "lm_head.weight" not in found and layout == "hf" and raw.get("tie_word_embeddings", True):
        wanted["model.language_model.embed_tokens.weight"] += wanted.pop("lm_head.weight")
    missing = sorted(wanted.keys() - found.keys())
    unexpected = sorted(found.keys() - wanted.keys())
    misshaped = [
        f"{name} {list(found[name])} instead of {list(goals[0].shape)}"
        for name, goals in sorted(wanted.items())
        if name in found and found[name] != goals[0].shape
    ]
    if missing or unexpected or misshaped:
        raise KeysMismatch(str(folder), missing, unexpected, misshaped)
    head = "lm_head.weight" if layout == "hf" else "language_model.lm_head.weight"
    model.to(dtype or _stored_dtype(files, head if head in found else "model.language_model.embed_tokens.weight"))
    model.to_empty(device=device)
    parameters = dict(model.named_parameters())
    for path, shapes in files.items():
        for name, tensor in read_tensors(path, [name for name in shapes if name in wanted]):
            for piece in wanted[name]:
                rows = parameters[piece.target][piece.first_row : piece.first_row + piece.num_rows]
                rows.copy_(tensor.reshape(rows.shape))
    return model


def _wanted_pieces(model: Model, layout: Layout) -> dict[str, list[Piece]]:
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    return {piece.name: [piece] for piece in pieces(model.config, shapes, layout)}


def _stored_dtype(files: dict[Path, dict[str, Any]], name: str) -> torch.dtype:
    path = next(path for path, shapes in files.items() if name in shapes)
    stored = next(tensor.dtype for _, tensor in read_tensors(path, [name]))
    return stored if stored in (torch.float32, torch.bfloat16) else torch.float32
