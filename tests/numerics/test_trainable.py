"""Every part runs under autograd, with the values it has without: training calls these forwards as they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from janus_core.checkpoints.load import build_empty
from janus_core.checkpoints.random import tiny_config
from janus_core.engine.batcher import lay_out
from janus_core.models.janus import Janus

IMAGE_ID = 300


def random_weights(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        parameter.data.normal_(1.0 if name.endswith("norm.weight") else 0.0, 0.05, generator=generator)


def trainable() -> Janus:
    model = build_empty(tiny_config()).to_empty(device="cpu")
    random_weights(model)
    return model.requires_grad_(True)


def without_gradient(part: nn.Module) -> list[str]:
    found = []
    for name, parameter in part.named_parameters():
        gradient = parameter.grad
        if gradient is None or not gradient.isfinite().all() or not gradient.any():
            found.append(name)
    return found


def test_the_image_tokenizer_learns_and_gives_the_same_bits() -> None:
    vq = trainable().vq
    pixels = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    z_BTC = vq.encode_features(pixels)
    codes = vq.nearest_codes(z_BTC)
    rows = vq.look_up(codes, 2, 3)
    straight = rows + (z_BTC - z_BTC.detach()).transpose(1, 2).unflatten(2, (2, 3))
    decoded = vq.decode_features(straight)
    decoded.square().mean().backward()
    assert without_gradient(vq) == []
    with torch.inference_mode():
        assert torch.equal(vq.encode(pixels), codes)
        assert torch.equal(vq.encode_features(pixels), z_BTC)
        assert torch.equal(vq.decode(codes, 2, 3), vq.decode_features(rows))
        assert torch.equal(vq.decode(codes, 2, 3), decoded)


def test_gradients_of_the_image_tokenizer_are_those_of_plain_operations() -> None:
    """Against finite differences in float64, whose convolutions are torch's own."""
    vq = trainable().double().vq
    pixels = torch.rand(1, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weight, step = vq.encoder.conv_in.weight, 1e-5
    vq.encode_features(pixels).square().sum().backward()
    assert weight.grad is not None
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight[0, 0, 0, 0] += sign * step
            values.append(vq.encode_features(pixels).square().sum())
            weight[0, 0, 0, 0] -= sign * step
    torch.testing.assert_close((values[0] - values[1]) / (2 * step), weight.grad[0, 0, 0, 0], rtol=1e-4, atol=1e-9)


def caption_loss(model: Janus, ids: Tensor, pixels: Tensor) -> Tensor:
    embeddings = model.embed_prompt(ids, IMAGE_ID, model.embed_images(pixels))
    hidden = model.llama(embeddings, lay_out(ids.tolist(), 0, 0, ids.device).step)
    return model.text_logits(hidden.flatten(0, 1)).square().mean()


def test_captions_and_codes_learn_also_after_inference() -> None:
    model = trainable()
    num_patches = model.config.siglip.num_patches
    ids = torch.tensor([[5, *[IMAGE_ID] * num_patches, 7, 8]])
    pixels = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        before = caption_loss(model, ids, pixels)
    seen: list[Tensor] = []
    hook = model.llama.layers[1].register_forward_hook(lambda _, __, hidden: seen.append(hidden))
    loss = caption_loss(model, ids, pixels)
    hook.remove()
    assert torch.equal(loss, before)
    assert seen[0].shape == (1, ids.shape[1], model.config.llama.hidden_size)
    codes = torch.arange(6)[None]
    hidden = model.llama(model.embed_codes(codes), lay_out(codes.tolist(), 0, 0, codes.device).step)
    (loss + seen[0].square().mean() + model.image_logits(hidden.flatten(0, 1)).square().mean()).backward()
    for part in (model.vision, model.aligner, model.llama, model.text_head, model.gen_aligner, model.gen_head):
        assert without_gradient(part) == []
    assert model.gen_embed.weight.grad is not None
