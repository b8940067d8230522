"""One model on one device: requests in, results in the same order out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image

from janus_core.checkpoints.config_json import read_config
from janus_core.checkpoints.load import Model, load_model
from janus_core.configs import JanusFlowConfig
from janus_core.engine.cache import bytes_per_token
from janus_core.engine.caption import Captioner, CaptionRow
from janus_core.engine.devices import choose_device, choose_dtype, free_bytes
from janus_core.engine.generate_flow import FlowRow
from janus_core.engine.generate_tokens import ImageRow
from janus_core.engine.painters import IsCancelled, Painter, choose_painter
from janus_core.engine.requests import Caption, CaptionRequest, GeneratedImage, GenerateRequest, Rejected, find_fault
from janus_core.engine.sampling import Sampling
from janus_core.errors import ConfigInvalid, TokenizerInvalid
from janus_core.processing import chat
from janus_core.processing.images import ImageSettings, fit, prepare, read_image_settings
from janus_core.processing.tokenizer import Tokenizer
from janus_core.registry import find_known, resolve, revision_of


@dataclass(frozen=True)
class EngineInfo:
    """image_size in pixels, of what is read and drawn; max_positions in tokens, prompt and answer together.

    parameters: without those of JanusFlow's VAE.
    """

    name: str
    family: str
    revision: str
    device: str
    dtype: str
    image_size: int
    max_positions: int
    parameters: int


def load_engine(
    name_or_path: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    roles: Literal["auto", "plain", "bracketed"] = "auto",
    name: str | None = None,
    max_rows: int | None = None,
) -> Engine:
    """Load a checkpoint folder, or a pulled model by its name.

    Args:
        device: "auto" is the first of cuda, mps and cpu that is there.
        dtype: "float32" or "bfloat16"; "auto" is bfloat16 on an accelerator and the checkpoint's own on the CPU.
        roles: how prompts name the speakers; "auto" asks the registry, then whether the tokenizer knows <|User|>.
            JanusFlow's are plain whatever is asked for.
        name: for `info`; the registered or the folder's name unless given.
        max_rows: most rows in one forward pass (a guided image is two); 16 on the CPU and 64 elsewhere unless given.
    Raises:
        UnknownModel, DeviceUnavailable, and the kinds of CheckpointError.
    """
    folder = resolve(name_or_path)
    chosen = choose_device(device)
    known = find_known(str(name_or_path), folder)
    is_flow = isinstance(read_config(folder)[0], JanusFlowConfig)
    tokenizer = Tokenizer.from_folder(folder, adds=chat.FLOW_MARKS if is_flow else chat.MARKS)
    images = read_image_settings(folder)
    if is_flow:
        roles = "plain"
    elif roles == "auto":
        bracketed = tokenizer.knows(chat.BRACKETED.user)
        roles = known.roles if known else "bracketed" if bracketed else "plain"
    model = load_model(folder, chosen, choose_dtype(dtype, chosen))
    _check_fit(folder, model, tokenizer, images)
    info = EngineInfo(
        name=name or (known.name if known else folder.resolve().name),
        family=known.family if known else _guess_family(is_flow, roles),
        revision=revision_of(folder),
        device=str(chosen),
        dtype=str(model.dtype).removeprefix("torch."),
        image_size=model.config.siglip.image_size,
        max_positions=model.config.max_positions,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
    )
    rows = max_rows or (16 if chosen.type == "cpu" else 64)
    return Engine(model, choose_painter(folder, model, tokenizer), tokenizer, images, chat.ROLES[roles], info, rows)


def _guess_family(is_flow: bool, roles: str) -> str:
    return "janusflow" if is_flow else "janus-pro" if roles == "bracketed" else "janus"


def _check_fit(folder: Path, model: Model, tokenizer: Tokenizer, images: ImageSettings) -> None:
    """Ids and sizes that disagree would otherwise fail in the middle of a batch, on CUDA beyond repair."""
    llama, siglip = model.config.llama, model.config.siglip
    if tokenizer.largest_text_id >= llama.vocab_size:
        raise TokenizerInvalid(
            f"{folder}: token id {tokenizer.largest_text_id} is beyond the {llama.vocab_size} embedded"
        )
    if images.image_size != siglip.image_size:
        raise ConfigInvalid(
            f"{folder}: images of {images.image_size} px are made for a tower of {siglip.image_size} px"
        )


class Engine:
    """Owns the model. One thread at a time; a result depends on its request alone, not on the others of its call."""

    def __init__(
        self,
        model: Model,
        painter: Painter[Any],
        tokenizer: Tokenizer,
        images: ImageSettings,
        roles: chat.Roles,
        info: EngineInfo,
        max_rows: int,
    ) -> None:
        self.model, self.tokenizer, self.images, self.roles, self.info = model, tokenizer, images, roles, info
        self.painter, self._max_rows = painter, max_rows

    def caption(
        self, requests: Sequence[CaptionRequest], *, is_cancelled: IsCancelled | None = None
    ) -> list[Caption | Rejected]:
        """Answer every request, in order. `is_cancelled(i)` is asked for request i between steps."""
        prepared = [self.prepare_caption(index, request) for index, request in enumerate(requests)]
        rows = [row for row in prepared if isinstance(row, CaptionRow)]
        if rows:
            self._run_captions(rows, is_cancelled or _never)
        return [row if isinstance(row, Rejected) else self._finish_caption(row) for row in prepared]

    def generate(
        self, requests: Sequence[GenerateRequest], *, is_cancelled: IsCancelled | None = None
    ) -> list[GeneratedImage | Rejected]:
        """Draw every request, in order. `is_cancelled(i)` is asked for request i between steps."""
        prepared = [self.prepare_image(index, request) for index, request in enumerate(requests)]
        rows = [row for row in prepared if not isinstance(row, Rejected)]
        self._run_images(rows, is_cancelled or _never)
        pictures = self._decode([row for row in rows if row.is_drawn])
        return [row if isinstance(row, Rejected) else pictures.get(row.index, _CANCELLED) for row in prepared]

    def fit_image(self, image: Image.Image) -> Image.Image:
        """The picture as `caption` sees it, image_size x image_size RGB: for callers that let many large ones wait.

        Captions of it are those of the original. Any thread may call this; it needs no device. Raises as `fit`.
        """
        return fit(image, self.images)

    def prepare_caption(self, index: int, request: CaptionRequest) -> CaptionRow | Rejected:
        """Check a request, tokenise its prompt and scale its images; needs no device."""
        fault = find_fault(request)
        if fault is not None:
            return fault
        pictures: list[Any] = list(request.image) if isinstance(request.image, list | tuple) else [request.image]
        marks = request.prompt.count(chat.IMAGE) or 1
        if len(pictures) != marks:
            return Rejected(
                "image_count_mismatch",
                f"The prompt has room for {marks} images and came with {len(pictures)}. "
                f"Write {chat.IMAGE} once for every image.",
            )
        ids = self.tokenizer.encode(chat.caption_prompt(request.prompt, self.roles))
        ids = self.tokenizer.expand_images(ids, self.model.config.siglip.num_patches)
        room = self.info.max_positions - len(ids) + 1
        if room < 1:
            return self._too_long(len(ids), self.info.max_positions)
        try:
            pixels = [torch.from_numpy(prepare(picture, self.images)) for picture in pictures]
        except Exception as error:  # Pillow's decoders raise many kinds, and none may end the batch
            return Rejected("image_unreadable", f"The image cannot be decoded ({error}). Save it anew and try again.")
        return CaptionRow(index, ids, torch.stack(pixels), min(request.max_new_tokens, room), _sampling(request))

    def prepare_image(self, index: int, request: GenerateRequest) -> ImageRow | FlowRow | Rejected:
        """Check a request and tokenise its prompt; needs no device."""
        fault = find_fault(request)
        if fault is not None:
            return fault
        if chat.IMAGE in request.prompt:
            return Rejected("prompt_has_image_mark", f"Images are drawn from words alone. Take {chat.IMAGE} out.")
        ids = self.tokenizer.encode(chat.image_prompt(request.prompt, self.roles))
        longest = self.info.max_positions - self.painter.num_positions + 1
        if len(ids) > longest:
            return self._too_long(len(ids), longest)
        row: ImageRow | FlowRow | Rejected = self.painter.prepare(index, ids, request)
        return row

    @staticmethod
    def _too_long(num_tokens: int, longest: int) -> Rejected:
        return Rejected("prompt_too_long", f"The prompt is {num_tokens} tokens long and {longest} fit. Shorten it.")

    def _run_captions(self, rows: Sequence[CaptionRow], is_cancelled: IsCancelled) -> None:
        num_rows = self._num_rows(max(row.num_positions for row in rows))
        while True:
            captioner = Captioner(
                self.model,
                image_id=self.tokenizer.image_id,
                eos_id=self.tokenizer.eos_id,
                num_rows=num_rows,
                is_cancelled=is_cancelled,
            )
            try:
                return captioner.run([row for row in rows if row.finish_reason is None])
            except torch.OutOfMemoryError:
                num_rows = min(num_rows, len(rows)) // 2
                if num_rows == 0:
                    raise
                torch.cuda.empty_cache()
                for row in rows:
                    if row.finish_reason is None:
                        row.tokens.clear()

    def _run_images(self, rows: Sequence[ImageRow | FlowRow], is_cancelled: IsCancelled) -> None:
        waiting = list(rows)
        longest = max((len(row.ids) for row in rows), default=0) + self.painter.num_positions
        count = max(1, min(self._num_rows(longest) // 2, self.painter.max_batch))
        while waiting:
            try:
                self.painter.draw(waiting[:count], is_cancelled)
                del waiting[:count]
            except torch.OutOfMemoryError:
                count = min(count, len(waiting)) // 2
                if count == 0:
                    raise
                torch.cuda.empty_cache()

    def _num_rows(self, num_positions: int) -> int:
        """Rows of this many positions whose cache fits half of the free memory, and no more than `max_rows`."""
        row_bytes = num_positions * bytes_per_token(self.model.config.llama, self.model.dtype, self.model.device)
        return max(1, min(self._max_rows, free_bytes(self.model.device) // 2 // row_bytes))

    def _finish_caption(self, row: CaptionRow) -> Caption | Rejected:
        if row.finish_reason is None:
            return _CANCELLED
        return Caption(self.tokenizer.decode(row.tokens), tuple(row.tokens), row.finish_reason)

    @torch.inference_mode()
    def _decode(self, rows: Sequence[ImageRow | FlowRow]) -> dict[int, GeneratedImage]:
        """Pictures by request index, a few at a time."""
        pictures: dict[int, GeneratedImage] = {}
        for first in range(0, len(rows), self.painter.max_decoded):
            chunk = rows[first : first + self.painter.max_decoded]
            drawn = zip(chunk, self.painter.decode(chunk), strict=True)
            pictures |= {row.index: picture for row, picture in drawn}
        return pictures


_CANCELLED = Rejected("cancelled", "The request was cancelled before it was done.")


def _never(_: int) -> bool:
    return False


def _sampling(request: CaptionRequest) -> Sampling:
    return Sampling(float(request.temperature), float(request.top_p), request.top_k, request.seed)
