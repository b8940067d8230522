"""What each of the three stages trains; everything else is frozen, the image tokenizer or VAE always.

Source: section 3.2 and figure 3 of the Janus paper; JanusFlow section 3.3. `gen_embed` trains with its aligner: the
papers do not name it.
"""

from __future__ import annotations

from typing import Literal

from torch import nn

from janus_core.models.janus import Janus
from janus_core.models.janusflow import JanusFlow

Stage = Literal[1, 2, 3]

_ADAPTORS: dict[type[nn.Module], tuple[str, ...]] = {
    Janus: ("aligner", "gen_embed", "gen_aligner", "gen_head"),
    JanusFlow: (
        *("aligner", "image_start", "gen_encoder", "gen_encoder_aligner"),
        *("gen_decoder_norm", "gen_decoder_aligner", "gen_decoder"),
    ),
}
_LANGUAGE = ("llama", "text_head")
_TOWER = ("vision",)


def train_only(model: nn.Module, stage: Stage) -> None:
    """Let exactly the stage's parameters require gradients."""
    trained = _ADAPTORS[type(model)] + (_LANGUAGE if stage >= 2 else ()) + (_TOWER if stage == 3 else ())
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.split(".")[0] in trained)
