"""The image tokenizer's own training, small: reconstruction and codebook, without a discriminator.

Shapes: B images, T codes of an image, C code size, K codes in the book, R remembered features.
Source: LlamaGen (arXiv 2406.06525) section 2.1; the losses are in deepseek-ai/Janus@1daa72f janus/models/vq_model.py.
Its perceptual and adversarial terms are left out: they need trained networks, and the sample world has no texture.
The first steps go without the quantiser: codes then start as features of a model that already draws.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from janus_core.models.vq import AttnBlock, ResBlock, VQModel
from janus_core.training.losses import Losses, reconstruction

_COMMITMENT = 0.25
_MEMORY = 0.99  # of a code for the features that chose it, a step
_REMEMBERED = 8192
_GAIN, _CODE_GAIN = 1.7, 2.0
_INSIDE_A_BLOCK = {"res", "mid", "attn"}
_REVIVE_EVERY = 25
"""Steps after which a code that was not used since the last time starts anew where the quantiser is worst."""


class VQObjective(nn.Module):
    """mean |x - x'| + mean (x - x')^2 with heavier objects + 0.25 |z - code|^2, straight through the codes.

    Codes are the running means of the features that chose them (arXiv 1711.00937, appendix A.1). Trained by gradient
    they ended a fifth further from the features than the means that k-means then found.
    """

    features: Tensor
    errors: Tensor
    used: Tensor
    counts: Tensor
    sums: Tensor
    num_steps: Tensor

    def __init__(self, vq: VQModel, *, side: int, quantise_from: int, revive_until: int) -> None:
        """side: of the grid, in codes. The others are steps: of the first quantised one, and of the last revival."""
        super().__init__()
        self.vq = vq
        self._side, self._quantise_from, self._revive_until = side, quantise_from, revive_until
        num_codes, code_size = vq.codebook.shape
        self.register_buffer("features", torch.zeros(_REMEMBERED, code_size))
        self.register_buffer("errors", torch.zeros(_REMEMBERED))
        self.register_buffer("used", torch.zeros(num_codes, dtype=torch.bool))
        self.register_buffer("counts", torch.zeros(num_codes))
        self.register_buffer("sums", torch.zeros(num_codes, code_size))
        self.register_buffer("num_steps", torch.zeros((), dtype=torch.int64))

    def forward(self, pixels_BCHW: Tensor) -> Losses:
        step = int(self.num_steps)
        self.num_steps += 1
        z_BTC = nn.functional.normalize(self.vq.encode_features(pixels_BCHW).float(), dim=-1)
        if step < self._quantise_from:
            self._remember(z_BTC.detach(), z_BTC.new_zeros(z_BTC.shape[:2]))
            return self._drawn(z_BTC, pixels_BCHW, z_BTC.new_zeros(()))
        self._renew_codes(step)
        codes_BT = self.vq.nearest_codes(z_BTC.detach())
        chosen_BTC = self.vq.look_up(codes_BT, self._side, self._side).flatten(2).transpose(1, 2).detach()
        gap_BTC = chosen_BTC - z_BTC
        errors_BT = gap_BTC.square().sum(-1)
        self._remember(z_BTC.detach(), errors_BT.detach())
        self._follow(z_BTC.detach(), codes_BT)
        return self._drawn(z_BTC + gap_BTC.detach(), pixels_BCHW, errors_BT.mean())

    def _drawn(self, z_BTC: Tensor, pixels_BCHW: Tensor, commitment: Tensor) -> Losses:
        z_BCHW = z_BTC.transpose(1, 2).reshape(len(z_BTC), -1, self._side, self._side)
        absolute, squared = reconstruction(self.vq.decode_features(z_BCHW), pixels_BCHW)
        parts = {"absolute": absolute, "squared": squared, "commitment": commitment}
        total = absolute + squared + _COMMITMENT * commitment
        return Losses(total, {name: value.detach() for name, value in parts.items()})

    @torch.no_grad()
    def _remember(self, z_BTC: Tensor, errors_BT: Tensor) -> None:
        """The newest features push out the oldest."""
        new_RC = z_BTC.flatten(0, 1)[:_REMEMBERED]
        self.features.copy_(torch.cat((new_RC, self.features))[:_REMEMBERED])
        self.errors.copy_(torch.cat((errors_BT.flatten()[:_REMEMBERED], self.errors))[:_REMEMBERED])

    @torch.no_grad()
    def _follow(self, z_BTC: Tensor, codes_BT: Tensor) -> None:
        """Bring every code to the running mean of the features that chose it."""
        features_RC, codes_R = z_BTC.flatten(0, 1), codes_BT.flatten()
        self.used[codes_R] = True
        chosen_K = torch.zeros_like(self.counts).index_add_(0, codes_R, torch.ones_like(features_RC[:, 0]))
        self.counts.lerp_(chosen_K, 1 - _MEMORY)
        self.sums.lerp_(torch.zeros_like(self.sums).index_add_(0, codes_R, features_RC), 1 - _MEMORY)
        moved_K = chosen_K > 0
        self.vq.codebook[moved_K] = self.sums[moved_K] / self.counts[moved_K, None]

    @torch.no_grad()
    def _renew_codes(self, step: int) -> None:
        """Fill the codebook when it is first asked for; later give codes that nothing chose a new place."""
        if step == self._quantise_from:
            every_K = torch.arange(len(self.vq.codebook), device=self.features.device)
            self._place(every_K, spread(self.features[self.features.any(dim=1)], len(every_K)))
        elif step % _REVIVE_EVERY == 0:
            unused_K = (~self.used).nonzero().flatten()
            if step < self._revive_until and len(unused_K):
                self._place(unused_K, self.features[torch.multinomial(self.errors + 1e-9, len(unused_K))])
            self.used.zero_()

    def _place(self, codes_K: Tensor, features_KC: Tensor) -> None:
        """With the weight of one step's feature, so that those that choose the code soon have their say."""
        self.vq.codebook[codes_K] = features_KC
        self.counts[codes_K] = 1 - _MEMORY
        self.sums[codes_K] = (1 - _MEMORY) * features_KC


def spread(points_RC: Tensor, count: int) -> Tensor:
    """`count` of the points, each drawn with the square of its distance to those drawn before (k-means++'s start)."""
    chosen = [int(torch.randint(len(points_RC), ()))]
    distances_R = (points_RC - points_RC[chosen[0]]).square().sum(-1)
    for _ in range(count - 1):
        chosen.append(int(torch.multinomial(distances_R + 1e-9, 1)))
        distances_R = torch.minimum(distances_R, (points_RC - points_RC[chosen[-1]]).square().sum(-1))
    return points_RC[chosen]


@torch.no_grad()
def start_plain(vq: VQModel) -> None:
    """Blocks that add nothing at first, and convolutions between them that keep the strength of what passes.

    With torch's own first weights every convolution halves it, and biases drown the colours: after 1000 pictures the
    squared error was twice as large.
    """
    for name, module in vq.named_modules():
        if isinstance(module, ResBlock):
            nn.init.zeros_(module.conv2.weight)
        elif isinstance(module, AttnBlock):
            nn.init.zeros_(module.proj_out.weight)
        elif isinstance(module, nn.Conv2d) and not _INSIDE_A_BLOCK & set(name.split(".")):
            gain = _CODE_GAIN * _GAIN if module is vq.post_quant_conv else _GAIN
            nn.init.normal_(module.weight, std=gain * module.weight[0].numel() ** -0.5)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
