"""Sizes of a Janus model, as frozen dataclasses; one literal for each published model.

Source: deepseek-ai/Janus@1daa72f janus/models/*.py. How config.json spells them: checkpoints/config_json.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Layout = Literal["official", "hf"]

TRAINED_POSITIONS = 4096
"""Tokens of context that every published Janus was trained on; config.json says 16384 and is not to be believed."""


@dataclass(frozen=True)
class LlamaConfig:
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    vocab_size: int
    max_positions: int
    rope_theta: float
    norm_eps: float


@dataclass(frozen=True)
class SiglipConfig:
    image_size: int  # pixels
    patch_size: int  # pixels
    width: int
    num_layers: int
    num_heads: int
    mlp_width: int

    @property
    def num_patches(self) -> int:
        return (self.image_size // self.patch_size) ** 2


@dataclass(frozen=True)
class VQConfig:
    num_codes: int
    code_size: int
    base_channels: int
    channel_multipliers: tuple[int, ...]
    num_res_blocks: int  # of an encoder level; a decoder level has one more
    z_channels: int

    @property
    def downsampling(self) -> int:
        """Pixels per token side."""
        return int(2 ** (len(self.channel_multipliers) - 1))


@dataclass(frozen=True)
class JanusConfig:
    llama: LlamaConfig
    siglip: SiglipConfig
    vq: VQConfig
    aligner_depth: int
    gen_aligner_depth: int
    gen_head_width: int

    @property
    def max_positions(self) -> int:
        return min(self.llama.max_positions, TRAINED_POSITIONS)

    @property
    def grid_side(self) -> int:
        """Image tokens along one side of a generated image."""
        return self.siglip.image_size // self.vq.downsampling

    @property
    def num_codes_per_image(self) -> int:
        return self.grid_side**2


VQ_16 = VQConfig(
    num_codes=16384,
    code_size=8,
    base_channels=128,
    channel_multipliers=(1, 1, 2, 2, 4),
    num_res_blocks=2,
    z_channels=256,
)
SIGLIP_LARGE_384 = SiglipConfig(image_size=384, patch_size=16, width=1024, num_layers=24, num_heads=16, mlp_width=4096)

JANUS_1_3B = JanusConfig(
    llama=LlamaConfig(
        hidden_size=2048,
        intermediate_size=5632,
        num_layers=24,
        num_heads=16,
        num_kv_heads=16,
        head_size=128,
        vocab_size=102400,
        max_positions=16384,
        rope_theta=10000.0,
        norm_eps=1e-6,
    ),
    siglip=SIGLIP_LARGE_384,
    vq=VQ_16,
    aligner_depth=2,
    gen_aligner_depth=2,
    gen_head_width=2048,
)
JANUS_PRO_1B = JANUS_1_3B
JANUS_PRO_7B = JanusConfig(
    llama=LlamaConfig(
        hidden_size=4096,
        intermediate_size=11008,
        num_layers=30,
        num_heads=32,
        num_kv_heads=32,
        head_size=128,
        vocab_size=102400,
        max_positions=16384,
        rope_theta=10000.0,
        norm_eps=1e-6,
    ),
    siglip=SIGLIP_LARGE_384,
    vq=VQ_16,
    aligner_depth=2,
    gen_aligner_depth=2,
    gen_head_width=4096,
)
