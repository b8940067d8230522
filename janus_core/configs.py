"""Sizes of a Janus model, as frozen dataclasses; one literal for each published model.

Source: deepseek-ai/Janus@1daa72f janus/models/*.py, janus/janusflow/models/*.py. How config.json spells them:
checkpoints/config_json.py, checkpoints/flow_json.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

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


@dataclass(frozen=True)
class UViTConfig:
    """JanusFlow's latent encoder and decoder. A stride of the encoder is undone by doublings in the decoder."""

    latent_channels: int
    width: int  # of the encoder
    read_width: int  # what the decoder gets from the language model, beside the encoder's own output
    kernel_size: int  # of the encoder's first convolution, as are stride and padding
    stride: int
    padding: int
    num_encoder_blocks: int
    num_decoder_blocks: int
    num_doublings: int
    encoder_eps: float
    decoder_eps: float


@dataclass(frozen=True)
class VaeConfig:
    """The part of diffusers' AutoencoderKL that says which latents a picture has."""

    latent_channels: int
    block_channels: tuple[int, ...]  # of every level, the finest first
    layers_per_block: int
    num_norm_groups: int
    scaling_factor: float

    @property
    def downsampling(self) -> int:
        """Pixels per latent side."""
        return int(2 ** (len(self.block_channels) - 1))


@dataclass(frozen=True)
class JanusFlowConfig:
    """hidden_size of the Llama is the width of the time embedding too: it is one of the tokens."""

    llama: LlamaConfig
    siglip: SiglipConfig
    uvit: UViTConfig
    vae: VaeConfig

    @property
    def max_positions(self) -> int:
        return min(self.llama.max_positions, TRAINED_POSITIONS)

    @property
    def latent_side(self) -> int:
        """Latents along one side of a generated image."""
        return self.siglip.image_size // self.vae.downsampling

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        return self.uvit.latent_channels, self.latent_side, self.latent_side

    @property
    def grid_side(self) -> int:
        """Tokens along one side of a generated image."""
        uvit = self.uvit
        return (self.latent_side + 2 * uvit.padding - uvit.kernel_size) // uvit.stride + 1

    @property
    def num_latent_tokens(self) -> int:
        """Tokens of an image as it is drawn, the time not counted."""
        return self.grid_side**2


ModelConfig: TypeAlias = JanusConfig | JanusFlowConfig

VQ_16 = VQConfig(
    num_codes=16384,
    code_size=8,
    base_channels=128,
    channel_multipliers=(1, 1, 2, 2, 4),
    num_res_blocks=2,
    z_channels=256,
)
SIGLIP_LARGE_384 = SiglipConfig(image_size=384, patch_size=16, width=1024, num_layers=24, num_heads=16, mlp_width=4096)

LLAMA_1_3B = LlamaConfig(
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
)

JANUS_1_3B = JanusConfig(
    llama=LLAMA_1_3B,
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

SDXL_VAE = VaeConfig(
    latent_channels=4,
    block_channels=(128, 256, 512, 512),
    layers_per_block=2,
    num_norm_groups=32,
    scaling_factor=0.13025,
)
JANUSFLOW_1_3B = JanusFlowConfig(
    llama=LLAMA_1_3B,
    siglip=SIGLIP_LARGE_384,
    uvit=UViTConfig(
        latent_channels=4,
        width=768,
        read_width=768,
        kernel_size=2,
        stride=2,
        padding=0,
        num_encoder_blocks=2,
        num_decoder_blocks=2,
        num_doublings=1,
        encoder_eps=1e-6,
        decoder_eps=1e-6,
    ),
    vae=SDXL_VAE,
)
