"""An item's images: fetched within limits, decoded in another process, so that bad input costs its own item."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from PIL import Image

from orchestrator.artifacts import open_places
from orchestrator.artifacts.base import ObjectMissing, ObjectStore
from orchestrator.domain.image_refs import ImageRef
from orchestrator.domain.places import InputPlaces
from orchestrator.domain.urls import is_url
from orchestrator.settings import Settings
from workers.blocks import Blocks
from workers.decoder_pool import DecoderPool
from workers.errors import BadInput
from workers.metrics import stage
from workers.urls import UrlFetcher

DECODED_TOGETHER_BYTES = 2**20  # of files, unless one alone is larger


class Inputs:
    """Where a worker's images come from; any thread may ask.

    Args:
        urls: None where images may not be named by URL.
        places: buckets beside the product's own; looked at again here, as the list may have changed.
        max_bytes, max_pixels: of one image.
    """

    def __init__(
        self,
        blocks: Blocks,
        decoders: DecoderPool,
        urls: UrlFetcher | None,
        places: InputPlaces,
        *,
        max_bytes: int,
        max_pixels: int,
    ) -> None:
        self._blocks, self._decoders, self._urls, self._places = blocks, decoders, urls, places
        self._max_bytes, self._max_pixels = max_bytes, max_pixels

    @stage("fetch")
    def fetch(self, wanted: Sequence[tuple[str, ImageRef]], *, team_id: str) -> list[bytes | BadInput]:
        """The files' bytes, or what is wrong with them: missing, too large, or not where they may be.

        Args:
            wanted: how messages name each, such as `items[17].image`, and where it is.
            team_id: whose job it is.
        Raises:
            StoreUnavailable: not the items' fault; worth another attempt.
        """
        return [self._fetch(place, image, team_id) for place, image in wanted]

    @stage("decode")
    def decode(
        self, fetched: Sequence[tuple[str, bytes | BadInput]], *, fit: Mapping[str, Any] | None = None
    ) -> list[Image.Image | BadInput]:
        """The images, RGB, or what is wrong with them: too large, incomplete, or what was wrong before.

        Args:
            fetched: how messages name each, and what `fetch` gave.
            fit: as of `DecoderPool.decode`.
        Raises:
            DecoderUnavailable: not the items' fault; worth another attempt.
        """
        files = [(place, data) for place, data in fetched if not isinstance(data, BadInput)]
        decoded = iter([picture for some in _in_small_groups(files) for picture in self._decode(some, fit)])
        return [data if isinstance(data, BadInput) else next(decoded) for _, data in fetched]

    def _fetch(self, place: str, image: ImageRef, team_id: str) -> bytes | BadInput:
        try:
            if image.bucket:
                self._require_open(place, image, team_id)
            elif is_url(image.key):
                return self._download(image.key, place)
            return self._stored(image, place)
        except BadInput as error:
            return error

    def _decode(
        self, files: Sequence[tuple[str, bytes]], fit: Mapping[str, Any] | None
    ) -> list[Image.Image | BadInput]:
        return self._decoders.decode_together(files, max_pixels=self._max_pixels, fit=fit)

    def close(self) -> None:
        """End the processes."""
        self._decoders.close()
        if self._urls is not None:
            self._urls.close()

    def _require_open(self, place: str, image: ImageRef, team_id: str) -> None:
        if not self._places.covers(image.bucket, image.key, team_id):
            raise BadInput("url_refused", f"{place} lies where this worker reads nothing (JANUS_INPUT_BUCKETS).")

    def _stored(self, image: ImageRef, place: str) -> bytes:
        try:
            data = self._blocks.read(image, max_bytes=self._max_bytes)
        except ObjectMissing:
            raise BadInput("image_missing", _missing(image, place)) from None
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


def _in_small_groups(files: Sequence[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    group, num_bytes = list[tuple[str, bytes]](), 0
    for file in files:
        if group and num_bytes + len(file[1]) > DECODED_TOGETHER_BYTES:
            yield group
            group, num_bytes = [], 0
        group.append(file)
        num_bytes += len(file[1])
    if group:
        yield group


def _missing(image: ImageRef, place: str) -> str:
    if image.bucket:
        return f"{place}: there is no object s3://{image.bucket}/{image.key} (any more)."
    return f"{place} was never uploaded; upload it and retry the item."


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
        Blocks(store),
        decoders,
        urls,
        open_places(settings),
        max_bytes=settings.max_image_bytes,
        max_pixels=settings.max_image_pixels,
    )
