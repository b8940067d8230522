"""The image tokenizer VQ-16: pixels to codes and back.

Operations stand in the official order: pictures are truncated to bytes, so a last bit can become a level. That is why
`kernels.swish` is no `silu`, and why `_Conv` chooses its own CPU kernels.

Shapes: B images, C channels, H x W pixels or grid cells, T = H * W codes row by row.
Source: deepseek-ai/Janus@1daa72f janus/models/vq_model.py (LlamaGen's tokenizer). Module names follow it.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from janus_core.configs import VQConfig
from janus_core.errors import TokenCountMismatch
from janus_core.models.kernels import Fused


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


class _Conv(nn.Conv2d):
    """In float32 on the CPU the same bits alone, in a batch, and with any number of threads.

    torch's choice depends on all three: a small picture alone, and 1x1 on one thread, take its own kernels and not
    oneDNN's. What the official code gets from one thread and several pictures is taken always: a matrix product for
    1x1, oneDNN for the rest. At the published sizes torch chooses oneDNN anyhow.
    """

    def forward(self, x: Tensor) -> Tensor:
        exact = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        if not exact or self.bias is None:
            return super().forward(x)
        if self.kernel_size == (1, 1):
            weight_BOI = self.weight.flatten(1).expand(len(x), -1, -1)
            return torch.baddbmm(self.bias[:, None], weight_BOI, x.flatten(2)).view(len(x), -1, *x.shape[2:])
        if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
            padding = [int(side) for side in self.padding]
            return torch.mkldnn_convolution(x, self.weight, self.bias, padding, self.stride, self.dilation, self.groups)
        return super().forward(x)


def _conv(channels_in: int, channels_out: int) -> _Conv:
    return _Conv(channels_in, channels_out, 3, padding=1)


class ResBlock(Fused):
    """x + conv(swish(norm(conv(swish(norm x))))), with a 1x1 conv on x where the widths differ."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(channels_in), _conv(channels_in, channels_out)
        self.norm2, self.conv2 = _norm(channels_out), _conv(channels_out, channels_out)
        self.nin_shortcut = _Conv(channels_in, channels_out, 1) if channels_in != channels_out else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(self.kernels.swish(self.norm1(x)))
        h = self.conv2(self.kernels.swish(self.norm2(h)))
        return self.kernels.plus(h, x if self.nin_shortcut is None else self.nin_shortcut(x))


class AttnBlock(nn.Module):
    """One head over all positions; softmax(q.k / sqrt(C))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.q, self.k, self.v, self.proj_out = (_Conv(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (conv(h).flatten(2) for conv in (self.q, self.k, self.v))
        weights_BTT = torch.softmax(torch.bmm(q.transpose(1, 2), k) * q.shape[1] ** -0.5, dim=2)
        mixed = torch.bmm(v, weights_BTT.transpose(1, 2)).view(x.shape)
        out: Tensor = x + self.proj_out(mixed)
        return out


class Downsample(nn.Module):
    """Half the size; padded on the right and at the bottom only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = _Conv(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(nn.functional.pad(x, (0, 1, 0, 1)))
        return out


class Upsample(nn.Module):
    """Twice the size, by nearest neighbour."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = _conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(nn.functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class Level(nn.Module):
    """One resolution: res blocks, each followed by attention at the lowest, then a resize except at the last."""

    def __init__(self, widths: list[int], attention: bool, resize: nn.Module | None, resize_name: str) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.res = nn.ModuleList(ResBlock(*pair) for pair in pairs)
        self.attn = nn.ModuleList(AttnBlock(out) for _, out in pairs) if attention else None
        self.add_module(resize_name, resize)
        self._resize_name = resize_name

    def forward(self, x: Tensor) -> Tensor:
        for index, block in enumerate(self.res):
            x = block(x)
            if self.attn is not None:
                x = self.attn[index](x)
        resize = getattr(self, self._resize_name)
        return x if resize is None else resize(x)


def _middle(channels: int) -> nn.ModuleList:
    return nn.ModuleList([ResBlock(channels, channels), AttnBlock(channels), ResBlock(channels, channels)])


class Encoder(Fused):
    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        widths = [config.base_channels * multiplier for multiplier in config.channel_multipliers]
        self.conv_in = _conv(3, config.base_channels)
        self.conv_blocks = nn.ModuleList()
        for index, width in enumerate(widths):
            last = index == len(widths) - 1
            before = widths[index - 1] if index else config.base_channels
            level = [before, *[width] * config.num_res_blocks]
            self.conv_blocks.append(Level(level, last, None if last else Downsample(width), "downsample"))
        self.mid = _middle(widths[-1])
        self.norm_out = _norm(widths[-1])
        self.conv_out = _conv(widths[-1], config.z_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in (*self.conv_blocks, *self.mid):
            x = block(x)
        out: Tensor = self.conv_out(self.kernels.swish(self.norm_out(x)))
        return out


class Decoder(Fused):
    """Levels stand in the order they run: the lowest resolution first."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        widths = [config.base_channels * multiplier for multiplier in reversed(config.channel_multipliers)]
        self.conv_in = _conv(config.z_channels, widths[0])
        self.mid = _middle(widths[0])
        self.conv_blocks = nn.ModuleList()
        for index, width in enumerate(widths):
            last = index == len(widths) - 1
            level = [widths[max(index - 1, 0)], *[width] * (config.num_res_blocks + 1)]
            self.conv_blocks.append(Level(level, index == 0, None if last else Upsample(width), "upsample"))
        self.norm_out = _norm(widths[-1])
        self.conv_out = _conv(widths[-1], 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in (*self.mid, *self.conv_blocks):
            x = block(x)
        out: Tensor = self.conv_out(self.kernels.swish(self.norm_out(x)))
        return out


class VQModel(nn.Module):
    """Codebook rows and encoder outputs are both brought to unit length before they are compared or looked up."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.quant_conv = _Conv(config.z_channels, config.code_size, 1)
        self.codebook = nn.Parameter(torch.empty(config.num_codes, config.code_size))
        self.post_quant_conv = _Conv(config.code_size, config.z_channels, 1)
        self.decoder = Decoder(config)

    def encode(self, pixels_BCHW: Tensor) -> Tensor:
        """int64 codes [B, T], row by row; pixels are RGB in [-1, 1]."""
        return self.nearest_codes(self.encode_features(pixels_BCHW))

    def encode_features(self, pixels_BCHW: Tensor) -> Tensor:
        """[B, T, code_size], row by row, as the encoder gives them: not yet of unit length, nor quantised."""
        z_BCHW: Tensor = self.quant_conv(self.encoder(pixels_BCHW))
        return z_BCHW.permute(0, 2, 3, 1).flatten(1, 2)

    def nearest_codes(self, z_BTC: Tensor) -> Tensor:
        """int64 codes [B, T] of the rows closest to features of any length."""
        z, book = nn.functional.normalize(z_BTC.flatten(0, 1), dim=-1), nn.functional.normalize(self.codebook, dim=-1)
        distances = z.pow(2).sum(1, keepdim=True) + book.pow(2).sum(1) - 2 * z @ book.T
        return distances.argmin(1).view(z_BTC.shape[:2])

    def look_up(self, codes_BT: Tensor, height: int, width: int) -> Tensor:
        """Unit-length codebook rows as a map [B, code_size, height, width]."""
        if codes_BT.shape[1] != height * width:
            raise TokenCountMismatch(f"{codes_BT.shape[1]} image tokens do not fill {height} x {width}")
        book = nn.functional.normalize(self.codebook, dim=-1)
        return book[codes_BT.view(-1, height, width)].permute(0, 3, 1, 2)

    def decode(self, codes_BT: Tensor, height: int, width: int) -> Tensor:
        """Turn image tokens back into pixels.

        Args:
            codes_BT: int64 in [0, num_codes), row by row; T = height * width.
            height, width: the grid, in tokens.
        Returns:
            RGB [B, 3, 16 height, 16 width], nominally [-1, 1] and not clamped.
        Raises:
            TokenCountMismatch: T does not fill the grid.
        Source: deepseek-ai/Janus@1daa72f janus/models/vq_model.py:505, height before width.
        """
        return self.decode_features(self.look_up(codes_BT, height, width))

    def decode_features(self, features_BCHW: Tensor) -> Tensor:
        """Pixels as `decode`, from codebook rows as `look_up` gives them."""
        out: Tensor = self.decoder(self.post_quant_conv(features_BCHW.contiguous()))
        return out
