"""Sizes at the limits; bit equality with the official code is in tests/numerics."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from janus_core.errors import ConfigInvalid
from janus_core.processing.images import ImageSettings, fit, prepare, read_image_settings, scale, to_images

HALF = (0.5, 0.5, 0.5)
SETTINGS = ImageSettings(image_size=384, min_size=14, mean=HALF, std=HALF, rescale_factor=1 / 255, normalize=True)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (383, 384), (384, 384), (7, 3)])
def test_every_size_becomes_the_same_square(size: tuple[int, int]) -> None:
    pixels = prepare(Image.new("RGB", size, (255, 0, 0)), SETTINGS)
    assert (pixels.shape, pixels.dtype) == ((3, 384, 384), np.float32)
    assert pixels.max() == 1
    assert pixels.min() == -1


def test_the_short_side_is_truncated_and_at_least_14_pixels() -> None:
    wide = prepare(Image.new("RGB", (1000, 667), (255, 255, 255)), SETTINGS)
    assert (wide[0] == 1).sum() == 384 * 256, "256.128 is truncated, and so would 256.9 be"
    thin = prepare(Image.new("RGB", (1, 5000), (255, 255, 255)), SETTINGS)
    assert (thin[0] == 1).sum() == 384 * 14


def test_padding_is_127_and_a_higher_half_goes_behind() -> None:
    pixels = prepare(Image.new("RGB", (384, 381), (255, 255, 255)), SETTINGS)
    grey = np.float32(127 / 255 - 0.5) / np.float32(0.5)
    assert np.allclose(pixels[:, [0, 382, 383]], grey)
    assert (pixels[:, 1:382] == 1).all()


@pytest.mark.parametrize(
    "size", [(1, 1), (1, 5000), (5000, 1), (383, 384), (384, 384), (7, 3), (2000, 1333), (211, 617)]
)
@pytest.mark.parametrize("image_size", [384, 64, 8])
def test_a_fitted_picture_stays_as_it_is_and_is_scaled_to_the_same_floats(
    size: tuple[int, int], image_size: int
) -> None:
    random = np.random.default_rng(sum(size))
    settings = dataclasses.replace(SETTINGS, image_size=image_size)
    image = Image.fromarray(random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    fitted = fit(image, settings)
    side = max(image_size, settings.min_size)
    assert (fitted.mode, fitted.size) == ("RGB", (side, side))
    assert np.array_equal(np.asarray(fit(fitted, settings)), np.asarray(fitted))
    assert np.array_equal(prepare(fitted, settings), prepare(image, settings))
    assert np.array_equal(scale(fitted, settings), prepare(image, settings))


def test_a_fitted_picture_keeps_no_metadata_and_the_original_does() -> None:
    image = Image.new("RGB", (384, 384))
    image.info["icc_profile"] = bytes(1_000_000)
    assert not fit(image, SETTINGS).info
    assert image.info


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK", "LA", "I;16"])
def test_every_mode_is_read(mode: str) -> None:
    assert prepare(Image.new(mode, (20, 30)), SETTINGS).shape == (3, 384, 384)


def test_an_empty_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="0 x 7 px"):
        prepare(Image.new("RGB", (0, 7)), SETTINGS)


def test_output_is_clipped_and_truncated() -> None:
    levels = torch.tensor([-9.0, -1.0, 0.0, 0.9999, 1.0, 9.0]).view(1, 1, 1, 6).expand(1, 3, 1, 6)
    assert np.asarray(to_images(levels)[0])[0, :, 0].tolist() == [0, 0, 127, 254, 255, 255]


def test_settings_are_read_in_either_form_and_never_guessed(tmp_path: Path) -> None:
    common = {"min_size": 14, "image_mean": HALF, "image_std": HALF, "rescale_factor": 1 / 255}
    path = tmp_path / "preprocessor_config.json"
    with pytest.raises(ConfigInvalid, match="preprocessor_config"):
        read_image_settings(tmp_path)
    hugging_face = common | {"size": {"height": 384, "width": 384}}
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": hugging_face}))
    assert read_image_settings(tmp_path) == SETTINGS
    for form in (common | {"image_size": 384}, hugging_face):
        path.write_text(json.dumps(form))
        assert read_image_settings(tmp_path) == SETTINGS
    path.write_text(json.dumps({"image_size": 384}))
    with pytest.raises(ConfigInvalid, match="image_mean"):
        read_image_settings(tmp_path)
