"""JanusFlow's latent encoder and decoder: ConvNeXt blocks that are told the time.

Shapes: B images, C latent channels, W block width, H x Y latents, h x y grid cells, D width of the time embedding.
Source: deepseek-ai/Janus@1daa72f janus/janusflow/models/uvit.py. Module names follow it, without its `mid_block`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from janus_core.configs import UViTConfig
from janus_core.models.layers import Linear, RMSNorm

_LONGEST_PERIOD = 10000.0


def time_features(time_B: Tensor, width: int) -> Tensor:
    """cos and then sin of the time at `width` / 2 frequencies from 1 down to 1 / 10000; float32 [B, width].

    Source: diffusers models/embeddings.py get_timestep_embedding, flip_sin_to_cos, downscale_freq_shift=0.
    """
    half = width // 2
    exponents = -math.log(_LONGEST_PERIOD) * torch.arange(half, dtype=torch.float32, device=time_B.device) / half
    angles = time_B.float()[:, None] * torch.exp(exponents)
    return torch.cat((angles.cos(), angles.sin()), dim=-1)


class TimeEmbedding(nn.Module):
    """Linear, SiLU, Linear over the features of the time."""

    def __init__(self, width: int, embedding_width: int) -> None:
        super().__init__()
        self.width = width
        self.linear_1 = nn.Linear(width, embedding_width)
        self.linear_2 = nn.Linear(embedding_width, embedding_width)

    def forward(self, time_B: Tensor) -> Tensor:
        features = time_features(time_B, self.width).to(self.linear_1.weight.dtype)
        out: Tensor = self.linear_2(nn.functional.silu(self.linear_1(features)))
        return out


class GlobalResponseNorm(nn.Module):
    """bias + x (weight n + 1), where n is a channel's length over the map by the mean length of all channels.

    Source: facebookresearch/ConvNeXt-V2 models/utils.py; the 1 stands for its "+ x".
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))

    def reset_parameters(self) -> None:
        """Begin as the identity."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x_BhyC: Tensor) -> Tensor:
        length_B11C = torch.norm(x_BhyC, p=2, dim=(1, 2), keepdim=True)
        share = length_B11C / (length_B11C.mean(dim=-1, keepdim=True) + 1e-6)
        return torch.addcmul(self.bias, self.weight * share + 1, x_BhyC)


class ConvNextBlock(nn.Module):
    """Depthwise 7x7, norm, two linears around GELU and response norm, plus the input; the time scales and shifts it."""

    def __init__(self, channels: int, time_width: int, eps: float) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = RMSNorm(channels, eps)
        self.channelwise_linear_1 = Linear(channels, 4 * channels)
        self.channelwise_norm = GlobalResponseNorm(4 * channels)
        self.channelwise_linear_2 = Linear(4 * channels, channels)
        self.cond_embeds_mapper = nn.Linear(time_width, 2 * channels)

    def forward(self, x_BWhy: Tensor, time_BD: Tensor) -> Tensor:
        h = self.norm(self.depthwise(x_BWhy).permute(0, 2, 3, 1))
        h = self.channelwise_norm(self.channelwise_linear_1.gelu(h))
        h = self.channelwise_linear_2(h).permute(0, 3, 1, 2) + x_BWhy
        scale, shift = self.cond_embeds_mapper(nn.functional.silu(time_BD))[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(shift, h, 1 + scale)


class Unpatchify(nn.Module):
    """Twice the size: norm over the channels, then a 1x1 convolution whose channels become 2x2 latents."""

    def __init__(self, channels_in: int, channels_out: int, eps: float) -> None:
        super().__init__()
        self.norm = RMSNorm(channels_in, eps)
        self.unpatch_conv = nn.Conv2d(channels_in, 4 * channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(self.unpatch_conv(over_channels(self.norm, x)), 2)


class UViTEncoder(nn.Module):
    """Noisy latents and their time to a grid of features and the time's embedding."""

    def __init__(self, config: UViTConfig, time_width: int) -> None:
        super().__init__()
        self.time_embed = TimeEmbedding(config.width, time_width)
        self.in_conv = nn.Conv2d(
            config.latent_channels, config.width, config.kernel_size, stride=config.stride, padding=config.padding
        )
        self.res_blocks = nn.ModuleList(
            ConvNextBlock(config.width, time_width, config.encoder_eps) for _ in range(config.num_encoder_blocks)
        )

    def forward(self, z_BCHY: Tensor, time_B: Tensor) -> tuple[Tensor, Tensor]:
        """[B, W, h, y] and [B, D]. The time is 1000 t: 0 is noise, 1000 a picture."""
        time_BD = self.time_embed(time_B)
        x: Tensor = self.in_conv(z_BCHY)
        for block in self.res_blocks:
            x = block(x, time_BD)
        return x, time_BD


class UViTDecoder(nn.Module):
    """What the language model made of the grid, beside the grid itself, to the velocity of the latents."""

    def __init__(self, config: UViTConfig, time_width: int) -> None:
        super().__init__()
        channels = config.read_width + config.width
        self.input_norm = RMSNorm(config.read_width, config.decoder_eps)
        self.res_blocks = nn.ModuleList(
            ConvNextBlock(channels, time_width, config.decoder_eps) for _ in range(config.num_decoder_blocks)
        )
        widths = [channels, *[config.width] * (config.num_doublings - 1), config.latent_channels]
        self.out_convs = nn.ModuleList(
            Unpatchify(widths[index], widths[index + 1], config.decoder_eps) for index in range(config.num_doublings)
        )

    def forward(self, read_BRhy: Tensor, grid_BWhy: Tensor, time_BD: Tensor) -> Tensor:
        """[B, C, H, Y]."""
        x = torch.cat((over_channels(self.input_norm, read_BRhy), grid_BWhy), dim=1)
        for block in self.res_blocks:
            x = block(x, time_BD)
        for unpatchify in self.out_convs:
            x = unpatchify(x)
        return x


def over_channels(norm: nn.Module, x_BChy: Tensor) -> Tensor:
    """Apply a norm over the last axis to the channels of a map."""
    out: Tensor = norm(x_BChy.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return out
