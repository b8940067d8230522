"""Published tensor names to ours; nowhere else are they spelt.

One rule table per layout turns the name of a parameter of ours into the published one; parameters that we keep fused
(q, k, v and gate, up) are several published tensors on top of each other. Loading and saving both read these tables.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from janus_core.configs import JanusFlowConfig, Layout, ModelConfig

Shape = tuple[int, ...]
Rules = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]


@dataclass(frozen=True)
class Piece:
    """A published tensor and where it goes: `num_rows` rows of the parameter `target`, from `first_row` on.

    `shape` is the published one; it has as many elements as those rows, not always as many axes.
    """

    name: str
    shape: Shape
    target: str
    first_row: int
    num_rows: int


_OFFICIAL: Rules = (
    (r"^llama\.", "language_model.model."),
    (r"^text_head\.", "language_model.lm_head."),
    (r"^vision\.patch_embed\.", "vision_model.vision_tower.patch_embed.proj."),
    (r"^vision\.", "vision_model.vision_tower."),
    (r"^gen_head\.layers\.0\.", "gen_head.output_mlp_projector."),
    (r"^gen_head\.layers\.1\.", "gen_head.vision_head."),
    (r"aligner\.layers\.(\d+)\.", lambda match: f"aligner.layers.{2 * int(match[1])}."),  # the GELUs count
    (r"^vq\.codebook$", "gen_vision_model.quantize.embedding.weight"),
    (r"^vq\.", "gen_vision_model."),
)

_FLOW: Rules = (
    (r"^llama\.", "language_model.model."),
    (r"^text_head\.", "language_model.lm_head."),
    (r"^vision\.patch_embed\.", "vision_und_enc_model.vision_tower.patch_embed.proj."),
    (r"^vision\.", "vision_und_enc_model.vision_tower."),
    (r"^aligner\.layers\.0\.", "vision_und_enc_aligner."),
    (r"^image_start$", "beg_of_und_embed"),
    (r"^gen_encoder_aligner\.", "vision_gen_enc_aligner."),
    (r"^gen_decoder_aligner\.", "vision_gen_dec_aligner."),
    (r"^gen_decoder_norm\.", "vision_gen_dec_aligner_norm."),
    (r"^gen_encoder\.", "vision_gen_enc_model."),
    (r"^gen_decoder\.", "vision_gen_dec_model."),
    (r"^(vision_gen_\w+)\.res_blocks\.", r"\1.mid_block.res_blocks."),
)

_HF: Rules = (
    (r"^llama\.", "model.language_model."),
    (r"^text_head\.", "lm_head."),
    (r"^vision\.pos_embed$", "model.vision_model.embeddings.position_embedding.weight"),
    (r"^vision\.patch_embed\.", "model.vision_model.embeddings.patch_embedding."),
    (r"^vision\.norm\.", "model.vision_model.post_layernorm."),
    (r"^vision\.blocks\.(\d+)\.", r"model.vision_model.encoder.layers.\1."),
    (r"(vision_model\..*)\.norm([12])\.", r"\1.layer_norm\2."),
    (r"(vision_model\..*)\.attn\.proj\.", r"\1.self_attn.projection_layer."),
    (r"(vision_model\..*)\.attn\.", r"\1.self_attn."),
    (r"^gen_head\.layers\.0\.", "model.generation_head.proj_out."),
    (r"^gen_head\.layers\.1\.", "model.generation_head.vision_head."),
    (r"^gen_embed\.", "model.generation_embeddings."),
    (r"^gen_aligner\.", "model.generation_aligner."),
    (r"^aligner\.", "model.aligner."),
    (r"aligner\.layers\.0\.", "aligner.fc1."),
    (r"aligner\.layers\.(\d+)\.", lambda match: f"aligner.hidden_layers.{int(match[1]) - 1}."),
    (r"^vq\.codebook$", "model.vqmodel.quantize.embedding.weight"),
    (r"^vq\.", "model.vqmodel."),
    (r"(vqmodel\.encoder)\.conv_blocks\.", r"\1.down."),
    (r"(vqmodel\.decoder)\.conv_blocks\.", r"\1.up."),
    (r"(vqmodel\..*)\.res\.(\d+)\.", r"\1.block.\2."),
    (r"(vqmodel\..*)\.mid\.0\.", r"\1.mid.block_1."),
    (r"(vqmodel\..*)\.mid\.1\.", r"\1.mid.attn_1."),
    (r"(vqmodel\..*)\.mid\.2\.", r"\1.mid.block_2."),
)

_IGNORED = re.compile(
    r"\.attn_pool\.|\.quantize\.codebook_used$|\.rotary_emb\.inv_freq$|^model\.vision_model\.embeddings\.position_ids$"
)


def is_ignored(name: str) -> bool:
    """Whether a published tensor is known and not used: the pooling head, code usage counts, rotary buffers."""
    return _IGNORED.search(name) is not None


def pieces(config: ModelConfig, parameters: Mapping[str, Shape], layout: Layout) -> Iterator[Piece]:
    """Every published tensor that `parameters`, ours by name and shape, are made of."""
    rules = _FLOW if isinstance(config, JanusFlowConfig) else _OFFICIAL if layout == "official" else _HF
    for target, shape in parameters.items():
        first_row = 0
        for leaf, num_rows in _parts(config, target, shape[0], layout):
            piece_shape = _published_shape(target, (num_rows, *shape[1:]), layout)
            yield Piece(_rename(leaf, rules), piece_shape, target, first_row, num_rows)
            first_row += num_rows


def unused_official(config: ModelConfig) -> dict[str, Shape]:
    """What the official layout holds beside the pieces, and the official code never runs."""
    is_flow = isinstance(config, JanusFlowConfig)
    pool = f"vision_{'und_enc_' if is_flow else ''}model.vision_tower.attn_pool"
    width, hidden = config.siglip.width, config.siglip.mlp_width
    linears = {"q": (width, width), "kv": (2 * width, width), "proj": (width, width)}
    linears |= {"mlp.fc1": (hidden, width), "mlp.fc2": (width, hidden)}
    shapes: dict[str, Shape] = {f"{pool}.latent": (1, 1, width)}
    for name, (rows, columns) in linears.items():
        shapes |= {f"{pool}.{name}.weight": (rows, columns), f"{pool}.{name}.bias": (rows,)}
    shapes |= {f"{pool}.norm.weight": (width,), f"{pool}.norm.bias": (width,)}
    return shapes if is_flow else shapes | {"gen_vision_model.quantize.codebook_used": (65536,)}


def _published_shape(target: str, shape: Shape, layout: Layout) -> Shape:
    """The official layout has axes of size 1 in front of the tower's positions and the response norms."""
    if layout == "official" and target == "vision.pos_embed":
        return (1, *shape)
    return (1, 1, 1, *shape) if ".channelwise_norm." in target else shape


def _parts(config: ModelConfig, target: str, num_rows: int, layout: Layout) -> list[tuple[str, int]]:
    """The names, still in our spelling, and row counts of what is stacked in a parameter."""
    llama = config.llama
    if ".qkv_proj." in target:
        rows = [llama.num_heads * llama.head_size, *[llama.num_kv_heads * llama.head_size] * 2]
        return [(target.replace("qkv_proj", f"{x}_proj"), count) for x, count in zip("qkv", rows, strict=True)]
    if ".gate_up_proj." in target:
        return [(target.replace("gate_up_proj", f"{x}_proj"), num_rows // 2) for x in ("gate", "up")]
    if ".attn.qkv." in target and layout == "hf":
        return [(target.replace(".qkv.", f".{x}_proj."), num_rows // 3) for x in "qkv"]
    return [(target, num_rows)]


def _rename(name: str, rules: Rules) -> str:
    """Apply the rules in order, each once."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
