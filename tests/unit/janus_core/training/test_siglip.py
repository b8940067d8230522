"""The tower's own training: what it is asked, and that all of it reaches the tower."""

from __future__ import annotations

import torch
from torch import Tensor

from janus_core.configs import SiglipConfig
from janus_core.models.siglip import Siglip
from janus_core.training.batches import TextBatch, TextRow, collate_text
from janus_core.training.initial import initialise
from janus_core.training.siglip import SiglipObjective, start_with_places

CONFIG = SiglipConfig(image_size=16, patch_size=4, width=32, num_layers=1, num_heads=2, mlp_width=64)


def objective() -> SiglipObjective:
    vision = Siglip(CONFIG)
    initialise(vision, 0)
    torch.manual_seed(1)
    return SiglipObjective(vision, 20, [6, 8, 3], num_heads=2)


def batch() -> tuple[Tensor, TextBatch, Tensor]:
    torch.manual_seed(2)
    captions = collate_text([TextRow([1, 5, 6, 2], 1), TextRow([1, 7, 2], 1), TextRow([1, 5, 6, 2], 1)])
    return torch.randn(3, 3, 16, 16), captions, torch.randint(0, 4, (3, 16, 3))


def test_every_question_reaches_the_tower() -> None:
    for name in ("contrastive", "read", "told"):
        model = objective()
        pixels, captions, looks = batch()
        features = model.vision(pixels)
        loss = {
            "contrastive": lambda m=model, f=features, c=captions: (m.embed_images(f) @ m.embed_texts(c).T).sum(),
            "read": lambda m=model, f=features, c=captions: m.read(f, c),
            "told": lambda m=model, f=features, k=looks: m.tell_looks(f, k),
        }[name]()
        loss.backward()
        silent = [n for n, p in model.vision.named_parameters() if p.grad is None or not p.grad.any()]
        assert [n for n in silent if n != "norm.bias"] == [], name


def test_the_loss_is_the_sum_of_its_means() -> None:
    losses = objective()(batch())
    parts = losses.parts
    torch.testing.assert_close(losses.total, parts["contrastive"] / 3 + parts["read"] + parts["told"])


def test_a_caption_is_read_from_the_picture_and_from_what_stands_before() -> None:
    model = objective().eval()
    pixels, captions, _ = batch()
    features = model.vision(pixels)
    before = model.read(features, captions)
    assert not torch.equal(before, model.read(features.flip(0) * 2, captions))
    changed = captions.ids.clone()
    changed[:, 3] = 9  # the last tokens, after which nothing is asked
    assert torch.equal(before, model.read(features, TextBatch(changed, captions.targets)))


def test_padding_says_nothing_to_the_text_encoder() -> None:
    model = objective().eval()
    _, captions, _ = batch()
    padded = TextBatch(
        torch.nn.functional.pad(captions.ids, (0, 3)), torch.nn.functional.pad(captions.targets, (0, 3), value=-100)
    )
    torch.testing.assert_close(model.embed_texts(captions), model.embed_texts(padded))


def test_places_tell_neighbours_along_both_axes() -> None:
    vision = Siglip(CONFIG)
    initialise(vision, 0)
    start_with_places(vision)
    places = vision.pos_embed.view(4, 4, 32)
    here = places[1, 1]
    near = [(here - places[1, 2]).norm(), (here - places[2, 1]).norm()]
    far = [(here - places[1, 3]).norm(), (here - places[3, 1]).norm(), (here - places[3, 3]).norm()]
    assert max(near) < min(far)
    assert torch.allclose(near[0], near[1])
