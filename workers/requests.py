"""An item to what the engine is asked."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from orchestrator.domain.items import Item
from orchestrator.domain.jobs import CaptionOptions, Options
from workers.engine_host import CaptionRequest, GenerateRequest
from workers.errors import BadInput


def place_of_image(item: Item, k: int) -> str:
    """How messages name an item's image."""
    return f"items[{item.index}].image" + (f"[{k}]" if len(item.images) > 1 else "")


def requests_of(
    item: Item, options: Options, images: Sequence[Image.Image | BadInput], seed: int
) -> Sequence[CaptionRequest | GenerateRequest]:
    """One request for a caption, one for each picture to draw.

    Args:
        options: the item's.
        images: the item's, or what is wrong with them.
        seed: of the first request.
    Raises:
        BadInput: the first of `images`.
    """
    if isinstance(options, CaptionOptions):
        return [
            CaptionRequest(
                image=[_sound(image) for image in images],
                prompt=item.prompt or options.prompt,
                max_new_tokens=options.max_tokens,
                temperature=options.temperature,
                top_p=options.top_p,
                top_k=options.top_k,
                seed=seed,
                prefix=options.prefix,
                avoid=options.avoid,
                min_new_tokens=options.min_tokens,
            )
        ]
    return [
        GenerateRequest(
            prompt=item.prompt or "",
            seed=seed + k,
            guidance=options.guidance,
            temperature=options.temperature,
            top_p=options.top_p,
            top_k=options.top_k,
            steps=options.steps,
            solver=options.solver,
        )
        for k in range(options.images)
    ]


def _sound(image: Image.Image | BadInput) -> Image.Image:
    if isinstance(image, BadInput):
        raise image
    return image
