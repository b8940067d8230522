"""An item's images: fetched within limits, decoded in another process, so that bad input costs its own item."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image

from orchestrator.artifacts.base import ObjectMissing, ObjectStore
from orchestrator.domain.items import ImageRef
from orchestrator.domain.urls import is_url
from orchestrator.settings import Settings
from workers.blocks import Blocks
from workers.decoder_pool import DecoderPool
from workers.errors import BadInput
from workers.metrics import stage
from workers.urls import UrlFetcher


class Inputs:
    """Where a worker's images come from; any thread may ask.

    Args:
        urls: None where images may not be named by URL.
        max_bytes, max_pixels: of one image.
    """

    def __init__(
        self, blocks: Blocks, decoders: DecoderPool, urls: UrlFetcher | None, *, max_bytes: int, max_pixels: int
    ) -> None:
        self._blocks, self._decoders, self._urls = blocks, decoders, urls
        self._max_bytes, self._max_pixels = max_bytes, max_pixels

    def image(self, image: ImageRef, *, place: str, fit: Mapping[str, Any] | None = None) -> Image.Image:
        """The image, RGB.

        Args:
            place: how messages name the image, such as `items[17].image`.
            fit: as of `DecoderPool.decode`.
        Raises:
            BadInput: missing, too large, not a complete image of an accepted format, or not where it may be.
            StoreUnavailable, DecoderUnavailable: not the item's fault; worth another attempt.
        """
        with stage("fetch"):
            data = self._download(image.key, place) if is_url(image.key) else self._stored(image, place)
        with stage("decode"):
            return self._decoders.decode(data, place=place, max_pixels=self._max_pixels, fit=fit)

    def close(self) -> None:
        """End the processes."""
        self._decoders.close()
        if self._urls is not None:
            self._urls.close()

    def _stored(self, image: ImageRef, place: str) -> bytes:
        try:
            data = self._blocks.read(image, max_bytes=self._max_bytes)
        except ObjectMissing:
            raise BadInput("image_missing", f"{place} was never uploaded; upload it and retry the item.") from None
        if len(data) > self._max_bytes:
            raise BadInput(
                "image_too_large",
                f"{place} has more than {self._max_bytes} bytes; this server accepts no more (JANUS_MAX_IMAGE_BYTES). "
                "Shrink it.",
            )
        return data

    def _download(self, url: str, place: str) -> bytes:
        if self._urls is None:
            raise BadInput("url_refused", f"{place} is a URL, and this worker fetches none (JANUS_ALLOW_IMAGE_URLS).")
        return self._urls.fetch(url, place=place, max_bytes=self._max_bytes)


def open_inputs(settings: Settings, store: ObjectStore) -> Inputs:
    """The inputs of a worker process."""
    decoders = DecoderPool(
        processes=settings.decode_processes, memory_bytes=settings.decode_memory_bytes, seconds=settings.decode_seconds
    )
    urls = None
    if settings.allow_image_urls:
        urls = UrlFetcher(
            seconds=settings.image_url_seconds,
            ports=[int(port) for port in settings.image_url_ports.split(",")],
            hosts=settings.image_url_hosts,
        )
    return Inputs(
        Blocks(store), decoders, urls, max_bytes=settings.max_image_bytes, max_pixels=settings.max_image_pixels
    )
