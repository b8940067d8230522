"""One model on one device: requests in, answers out, all that run at a time sharing their steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from traceback import clear_frames
from typing import Any, Literal

import torch

from janus_core.checkpoints.config_json import read_config
from janus_core.checkpoints.load import Model, load_model
from janus_core.configs import JanusFlowConfig
from janus_core.engine.devices import choose_device, choose_dtype
from janus_core.engine.filters import Filters
from janus_core.engine.flow_lane import FlowLane
from janus_core.engine.lane import Lane
from janus_core.engine.packing import KernelChoice, Quantize, make_fast
from janus_core.engine.painters import Painter, choose_painter
from janus_core.engine.requests import Caption, CaptionRequest, GeneratedImage, GenerateRequest, Rejected, find_fault
from janus_core.engine.rows import CaptionRow, FlowRow, ImageRow, Row
from janus_core.engine.sampling import Sampling
from janus_core.engine.token_lane import TokenLane
from janus_core.errors import ConfigInvalid, TokenizerInvalid
from janus_core.models.janusflow import JanusFlow
from janus_core.processing import chat
from janus_core.processing.images import ImageSettings, prepare, read_image_settings
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
    quantize: str
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
    quantize: Quantize = "none",
    kernels: KernelChoice = "auto",
) -> Engine:
    """Load a checkpoint folder, or a pulled model by its name.

    Args:
        device: "auto" is the first of cuda, mps and cpu that is there.
        dtype: "float32" or "bfloat16"; "auto" is bfloat16 on an accelerator and the checkpoint's own on the CPU.
        roles: how prompts name the speakers; "auto" asks the registry, then whether the tokenizer knows <|User|>.
            JanusFlow's are plain whatever is asked for.
        name: for `info`; the registered or the folder's name unless given.
        quantize: "int8" halves the language model's weights, on the CPU.
        kernels: "plain" rounds as the published code does, "packed" and "compiled" are faster; see engine/packing.py.
            "auto" is compiled for large models in bfloat16 on the CPU, plain for the others there, else packed.
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
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    make_fast(model, kernels, quantize)
    info = EngineInfo(
        name=name or (known.name if known else folder.resolve().name),
        family=known.family if known else _guess_family(is_flow, roles),
        revision=revision_of(folder),
        device=str(chosen),
        dtype=str(model.dtype).removeprefix("torch."),
        quantize=quantize,
        image_size=model.config.siglip.image_size,
        max_positions=model.config.max_positions,
        parameters=num_parameters,
    )
    rows = max_rows or (16 if chosen.type == "cpu" else 64)
    return Engine(model, choose_painter(folder, model), tokenizer, images, chat.ROLES[roles], info, rows)


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


IsCancelled = Callable[[int], bool]


class Engine:
    """Owns the model. What a request gets depends on it alone, not on the others that run beside it.

    Two ways in. `caption` and `generate` answer a list. `start` and `turn` answer what comes as it comes: rows may be
    prepared and cancelled by any thread, but one thread alone starts them and takes the turns.
    """

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
        self.painter, self.max_rows = painter, max_rows
        self._filters = Filters(tokenizer, model.config.llama.vocab_size)
        self._reader = TokenLane(
            model,
            image_id=tokenizer.image_id,
            eos_id=tokenizer.eos_id,
            pad_id=tokenizer.pad_id,
            max_slots=max_rows,
            max_rows=max_rows,
        )
        self._drawer: Lane[Any] = self._reader
        if isinstance(model, JanusFlow):
            self._drawer = FlowLane(model, pad_id=tokenizer.pad_id, max_slots=max_rows)
        self._left: list[Row] = []
        self._lanes: list[Lane[Any]] = [self._reader] if self._drawer is self._reader else [self._reader, self._drawer]

    def caption(
        self, requests: Sequence[CaptionRequest], *, is_cancelled: IsCancelled | None = None
    ) -> list[Caption | Rejected]:
        """Answer every request, in order. `is_cancelled(i)` is asked for request i between steps."""
        return self._answer([self.prepare_caption(request) for request in requests], is_cancelled)

    def generate(
        self, requests: Sequence[GenerateRequest], *, is_cancelled: IsCancelled | None = None
    ) -> list[GeneratedImage | Rejected]:
        """Draw every request, in order. `is_cancelled(i)` is asked for request i between steps."""
        return self._answer([self.prepare_image(request) for request in requests], is_cancelled)

    # --- One by one ---------------------------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        return not self._left and all(lane.is_idle for lane in self._lanes)

    @property
    def num_running(self) -> int:
        """Rows that the next turn goes on with. Any thread may ask."""
        return sum(len(lane.scheduler.running) for lane in self._lanes)

    def start(self, row: Row) -> None:
        """Queue a prepared request; `turn` returns it once it has its `answer`, or its `error`."""
        lane: Lane[Any] = self._reader if isinstance(row, CaptionRow) else self._drawer
        lane.scheduler.add(row)

    def turn(self) -> list[Row]:
        """Go a step further with everything that runs, and begin what fits. Returns what left.

        Raises what a batch raised; its rows then run again in halves, so that the one to blame is found, and what left
        meanwhile is returned by the next turn.
        """
        for lane in self._lanes:
            if not lane.is_idle:
                self._left += lane.turn()
        left, self._left = self._left, []
        for row in left:
            if isinstance(row, CaptionRow) and row.is_done:
                tokens = (*row.begun, *row.tokens)
                row.answer = Caption(self.tokenizer.decode(tokens), tokens, row.finish_reason or "stop")
            elif not row.is_done and row.error is None:
                row.answer = _CANCELLED
        self._decode([row for row in left if isinstance(row, ImageRow | FlowRow) and row.is_done])
        return left

    def forget(self, rows: Sequence[Row]) -> None:
        """Give up what was started, whether it has left or not."""
        self._left = [row for row in self._left if row not in rows]
        for lane in self._lanes:
            lane.forget(rows)

    def _answer(self, prepared: Sequence[Row | Rejected], is_cancelled: IsCancelled | None) -> list[Any]:
        if not self.is_idle:
            raise RuntimeError("requests that were started are still running; take turns until the engine is idle")
        waiting = {n: row for n, row in enumerate(prepared) if isinstance(row, Row)}
        try:
            for row in waiting.values():
                self.start(row)
            while waiting:
                for n, row in waiting.items():
                    row.is_cancelled = is_cancelled is not None and is_cancelled(n)
                for row in self.turn():
                    if row.error is not None:
                        raise row.error
                waiting = {n: row for n, row in waiting.items() if row.answer is None}
        finally:
            self.forget([row for row in waiting.values() if row.error is None])
        return [row if isinstance(row, Rejected) else row.answer for row in prepared]

    @torch.inference_mode()
    def _decode(self, rows: Sequence[ImageRow | FlowRow]) -> None:
        """Give drawn rows their pictures, a few at a time; fewer, if those raise."""
        most = self.painter.max_decoded
        for some in (rows[first : first + most] for first in range(0, len(rows), most)):
            try:
                for row, picture in zip(some, self.painter.decode(some), strict=True):
                    row.answer = picture
            except Exception as error:
                clear_frames(error.__traceback__)
                if len(some) == 1:
                    some[0].error = error
                else:
                    for row in some:
                        self._decode([row])

    # --- Preparing ----------------------------------------------------------------------------------------------------

    def prepare(self, request: CaptionRequest | GenerateRequest, *, job: str = "", order: int = 0) -> Row | Rejected:
        """Check a request and tokenise its prompt, for `start`. Any thread may call this; it needs no device.

        job: whose share it counts against: of those that wait, the job that has had least of the engine goes next.
        order: of a job's requests the lowest goes first, and of equal ones the oldest.
        """
        row = self.prepare_caption(request) if isinstance(request, CaptionRequest) else self.prepare_image(request)
        if isinstance(row, Row):
            row.job, row.order = job, order
        return row

    def prepare_caption(self, request: CaptionRequest) -> CaptionRow | Rejected:
        """As `prepare`; scales its images as well."""
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
        begun = self._filters.begin(request)
        if isinstance(begun, Rejected):
            return begun
        ids += begun
        room = self.info.max_positions - len(ids) + 1
        if room < 1:
            return self._too_long(len(ids), self.info.max_positions)
        try:
            pixels = [torch.from_numpy(prepare(picture, self.images)) for picture in pictures]
        except Exception as error:  # Pillow's decoders raise many kinds, and none may end the batch
            return Rejected("image_unreadable", f"The image cannot be decoded ({error}). Save it anew and try again.")
        longest = min(request.max_new_tokens - len(begun), room)
        own = self._filters.of(request, begun)
        return CaptionRow(ids, torch.stack(pixels), longest, _sampling(request), tuple(begun), own)

    def prepare_image(self, request: GenerateRequest) -> ImageRow | FlowRow | Rejected:
        """As `prepare`."""
        fault = find_fault(request)
        if fault is not None:
            return fault
        if chat.IMAGE in request.prompt:
            return Rejected("prompt_has_image_mark", f"Images are drawn from words alone. Take {chat.IMAGE} out.")
        ids = self.tokenizer.encode(chat.image_prompt(request.prompt, self.roles))
        longest = self.info.max_positions - self.painter.num_positions + 1
        if len(ids) > longest:
            return self._too_long(len(ids), longest)
        row: ImageRow | FlowRow | Rejected = self.painter.prepare(ids, request)
        return row

    @staticmethod
    def _too_long(num_tokens: int, longest: int) -> Rejected:
        return Rejected("prompt_too_long", f"The prompt is {num_tokens} tokens long and {longest} fit. Shorten it.")


_CANCELLED = Rejected("cancelled", "The request was cancelled before it was done.")


def _sampling(request: CaptionRequest) -> Sampling:
    return Sampling(float(request.temperature), float(request.top_p), request.top_k, request.seed)
