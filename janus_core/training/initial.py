"""First weights of a model that is trained from nothing."""

from __future__ import annotations

import torch
from torch import nn

from janus_core.models.layers import RMSNorm
from janus_core.models.llama import Llama
from janus_core.models.siglip import Siglip
from janus_core.models.vq import VQModel

_STD = 0.02  # transformers' LlamaConfig.initializer_range


@torch.no_grad()
def initialise(model: nn.Module, seed: int) -> None:
    """Fill in every parameter that torch's own layers do not, and the Llama's as published. Same seed, same weights."""
    torch.manual_seed(seed)
    for module in model.modules():
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
        if isinstance(module, RMSNorm):
            nn.init.ones_(module.weight)
        if isinstance(module, Siglip):
            nn.init.normal_(module.pos_embed, std=_STD)
        if isinstance(module, VQModel):
            nn.init.normal_(module.codebook)
    for llama in [module for module in model.modules() if isinstance(module, Llama)]:
        for module in llama.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=_STD)
