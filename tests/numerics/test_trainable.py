"""Every part runs under autograd, with the values it has without: training calls these forwards as they are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from janus_core.checkpoints.load import build_empty
from janus_core.checkpoints.random import tiny_config, tiny_flow_config
from janus_core.engine.batcher import Prefill, lay_out, lay_out_with_block
from janus_core.models.janus import Janus
from janus_core.models.janusflow import JanusFlow
from janus_core.models.reader import Reader

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


def caption_loss(model: Reader, ids: Tensor, pixels: Tensor) -> Tensor:
    embeddings = model.embed_prompt(ids, IMAGE_ID, model.embed_images(pixels))
    hidden = model.llama(embeddings, lay_out(ids.tolist(), 0, ids.device).step)
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
    assert seen[0].shape == (ids.numel(), model.config.llama.hidden_size)
    codes = torch.arange(6)[None]
    hidden = model.llama(model.embed_codes(codes), lay_out(codes.tolist(), 0, codes.device).step)
    (loss + seen[0].square().mean() + model.image_logits(hidden.flatten(0, 1)).square().mean()).backward()
    for part in (model.vision, model.aligner, model.llama, model.text_head, model.gen_aligner, model.gen_head):
        assert without_gradient(part) == []
    assert model.gen_embed.weight.grad is not None


PROMPTS = [[1, 5, 6, 7, 8, 9], [1, 30, 31], [1, 40, 41, 42], [1, 50]]
DROPPED = [False, True, False, True]


def trainable_flow() -> JanusFlow:
    model = build_empty(tiny_flow_config()).to_empty(device="cpu")
    random_weights(model)
    return model.requires_grad_(True)


def noisy(model: JanusFlow, count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(count, *model.config.latent_shape, generator=generator), torch.tensor([0.0, 130.0, 700.0, 990.0])


def lay_out_prompts(model: JanusFlow, rows: list[list[int]], dropped: list[bool]) -> Prefill:
    return lay_out_with_block(rows, dropped, 1 + model.config.num_latent_tokens, pad_id=3, device=model.device)


def test_velocities_learn_also_after_inference() -> None:
    model = trainable_flow()
    z, time = noisy(model, 4)
    laid = lay_out_prompts(model, PROMPTS, DROPPED)

    def velocity() -> Tensor:
        return model.velocity(z, time, laid.step, prompt_RPD=model.llama.embed_tokens(laid.ids))

    with torch.inference_mode():
        before = velocity()
    seen: list[Tensor] = []
    hook = model.llama.layers[1].register_forward_hook(lambda _, __, hidden: seen.append(hidden))
    now = velocity()
    hook.remove()
    assert torch.equal(now, before)
    assert seen[0].shape == (laid.step.positions.numel(), model.config.llama.hidden_size)
    (now.square().mean() + seen[0].square().mean()).backward()
    for part in (model.gen_encoder, model.gen_encoder_aligner, model.gen_decoder_norm, model.gen_decoder_aligner):
        assert without_gradient(part) == []
    assert without_gradient(model.gen_decoder) == []
    assert without_gradient(model.llama) == []


def test_a_row_of_a_padded_batch_is_the_row_alone_and_a_dropped_prompt_is_not_seen() -> None:
    model = trainable_flow()
    z, time = noisy(model, 4)
    laid = lay_out_prompts(model, PROMPTS, DROPPED)
    together = model.velocity(z, time, laid.step, prompt_RPD=model.llama.embed_tokens(laid.ids))
    for row, (prompt, dropped) in enumerate(zip(PROMPTS, DROPPED, strict=True)):
        for other in ([prompt[0], *[77] * (len(prompt) - 1)], prompt):
            alone = lay_out_prompts(model, [other], [dropped])
            embedded = model.llama.embed_tokens(alone.ids)
            velocity = model.velocity(z[row : row + 1], time[row : row + 1], alone.step, prompt_RPD=embedded)
            difference = (velocity[0] - together[row]).abs().max().item()
            assert (difference < 1e-5) == (dropped or other == prompt), (row, other, difference)


def test_the_begin_of_an_image_learns() -> None:
    model = trainable_flow()
    num_patches, size = model.config.siglip.num_patches, model.config.siglip.image_size
    ids = torch.tensor([[5, 6, *[IMAGE_ID] * num_patches, 7, 8]])
    pixels = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    features = model.embed_images(pixels)
    embedded = model.embed_prompt(ids, IMAGE_ID, features)
    assert torch.equal(embedded[0, 1 : 2 + num_patches], features[0])
    assert torch.equal(embedded[0, 1], model.image_start[0])
    assert torch.equal(embedded[0, -2], model.llama.embed_tokens.weight[7]), "end-of-image keeps its own"
    caption_loss(model, ids, pixels).backward()
    assert model.image_start.grad is not None
    assert model.image_start.grad.any()
    for part in (model.vision, model.aligner, model.text_head):
        assert without_gradient(part) == []
