"""Decoder processes, as many as are asked for at once: started when first needed, replaced when they die."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from PIL import Image

from orchestrator.telemetry import get_logger
from workers.decoder import receive_frame, send_frame
from workers.errors import BadInput, DecoderUnavailable

START_SECONDS = 60.0  # for a process to say that it is ready, on a busy machine
WALL_FACTOR = 3  # a decoder that is not given the CPU is waited for so many times the CPU seconds it may use
# What a decoder is told of its surroundings: where its modules are, and none of the worker's secrets.
PASSED_ON = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")
# One thread; and memory stays with the process between pictures, which saves a third of the time of small ones.
OWN_VARIABLES = {
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(64 * 2**20),
}


class _Died(Exception):
    """The decoder ended while it had a picture; `status` as `Popen.returncode` has it."""

    def __init__(self, status: int) -> None:
        super().__init__(signal.Signals(-status).name if status < 0 else f"exit status {status}")
        self.status = status


class _TookTooLong(Exception):
    """The picture used up its seconds."""


class _TalkedNonsense(Exception):
    """What it answered is no picture: a file may have taken it over, so it is gone now."""


class _Decoder:
    """One process. Only one thread may use it at a time."""

    def __init__(self, module: str, memory_bytes: int, seconds: float) -> None:
        self._seconds = seconds
        command = [sys.executable, "-m", module, str(os.getpid()), str(memory_bytes), str(seconds)]
        variables = {name: os.environ[name] for name in PASSED_ON if name in os.environ} | OWN_VARIABLES
        self._socket, inside = socket.socketpair()
        try:
            with inside:
                self.process = subprocess.Popen(  # noqa: S603
                    command, stdin=inside.fileno(), stdout=subprocess.DEVNULL, env=variables
                )
        except OSError:
            self._socket.close()
            raise
        try:
            receive_frame(self._socket, max_body_bytes=0, until=time.monotonic() + START_SECONDS)
        except (OSError, EOFError, ValueError) as error:
            raise DecoderUnavailable(
                f"the decoder process ended with status {self.kill()} before it was ready; its words are in the "
                "worker's log"
            ) from error

    def ask(
        self, request: Mapping[str, Any], files: Sequence[tuple[str, bytes]], *, max_body_bytes: int
    ) -> tuple[dict[str, Any], bytearray]:
        """Raises _Died, _TookTooLong; the process is gone then."""
        until = time.monotonic() + WALL_FACTOR * self._seconds * len(files)
        header = {**request, "files": [(place, len(data)) for place, data in files]}
        try:
            self._socket.settimeout(until - time.monotonic())
            send_frame(self._socket, header, b"".join(data for _, data in files))
            return receive_frame(self._socket, max_body_bytes=max_body_bytes, until=until)
        except TimeoutError:
            self.kill()
            raise _TookTooLong from None
        except (OSError, EOFError):
            with suppress(subprocess.TimeoutExpired):  # it is ending: by what?
                self.process.wait(5)
            status = self.kill()
            raise (_TookTooLong if status == -signal.SIGXCPU else _Died(status)) from None
        except (ValueError, RecursionError):  # it talks nonsense
            raise _Died(self.kill()) from None

    def kill(self) -> int:
        """End it; its status."""
        self._socket.close()
        self.process.kill()
        return self.process.wait()


class DecoderPool:
    """Decodes pictures in other processes; any thread may ask.

    Args:
        processes: at once; 0 means as many as there are cores, four at most.
        memory_bytes: address space of each process, some 110 MB of which it needs for itself.
        seconds: of CPU time for one picture.
        module: what each process runs.
    """

    def __init__(self, *, processes: int, memory_bytes: int, seconds: float, module: str = "workers.decoder") -> None:
        self._module = module
        self._memory_bytes = memory_bytes
        self._seconds = seconds
        self._places = threading.BoundedSemaphore(processes or min(os.cpu_count() or 1, 4))
        self._idle: list[_Decoder] = []
        self._alive: set[_Decoder] = set()
        self._lock = threading.Lock()
        self._closed = False
        # The kernel ends a process with the thread that started it: one thread that lives as long as we do starts all.
        self._starter = ThreadPoolExecutor(1, thread_name_prefix="decoder-starter")

    def decode(self, data: bytes, *, place: str, max_pixels: int, fit: Mapping[str, Any] | None = None) -> Image.Image:
        """The picture, RGB.

        Args:
            place: how messages name the picture, such as `items[17].image`.
            fit: the fields of janus_core's ImageSettings, to get it at the model's size; None leaves its size.
        Raises:
            BadInput: too large, not a complete image of an accepted format, or fatal to its decoder twice.
            DecoderUnavailable: no process starts.
        """
        request = {"max_pixels": max_pixels, "fit": fit}
        try:
            try:
                (picture,) = self._ask(request, [(place, data)])
            except _Died as death:  # perhaps somebody else's doing, such as the kernel's when memory is short
                get_logger().warning("decoder_died", place=place, how=str(death))
                (picture,) = self._ask(request, [(place, data)])
        except _Died as death:
            get_logger().warning("decoder_died", place=place, how=str(death))
            message = f"{place} ended the process that decoded it, twice ({death}). Save it anew."
            raise BadInput("image_unreadable", message) from None
        except _TalkedNonsense:
            message = f"{place}: its decoder gave no picture. Save it anew."
            raise BadInput("image_unreadable", message) from None
        except _TookTooLong:
            raise BadInput(
                "image_too_large",
                f"{place} takes more than {self._seconds:g} s to decode; this server gives no more "
                "(JANUS_DECODE_SECONDS). Save it anew or shrink it.",
            ) from None
        if isinstance(picture, BadInput):
            raise picture
        return picture

    def decode_together(
        self, files: Sequence[tuple[str, bytes]], *, max_pixels: int, fit: Mapping[str, Any] | None = None
    ) -> list[Image.Image | BadInput]:
        """The pictures of some small files, or what is wrong with them, for the price of one conversation.

        Args:
            files: place and bytes of each.
        Raises DecoderUnavailable.
        """
        try:
            return self._ask({"max_pixels": max_pixels, "fit": fit}, files)
        except (_Died, _TookTooLong, _TalkedNonsense) as error:
            get_logger().info("decoded_one_by_one", why=type(error).__name__)  # so that only the one to blame fails
        return [self._outcome(data, place=place, max_pixels=max_pixels, fit=fit) for place, data in files]

    def _outcome(self, data: bytes, **how: Any) -> Image.Image | BadInput:
        try:
            return self.decode(data, **how)
        except BadInput as error:
            return error

    def close(self) -> None:
        """End every process. Who waits for a picture gets DecoderUnavailable."""
        with self._lock:
            self._closed = True
            idle, busy = self._idle, self._alive.difference(self._idle)
            self._idle, self._alive = [], set()
        self._starter.shutdown(wait=False)
        for decoder in idle:
            decoder.kill()
        for decoder in busy:
            decoder.process.kill()  # who waits for it notices, and finds no other

    def _ask(self, request: Mapping[str, Any], files: Sequence[tuple[str, bytes]]) -> list[Image.Image | BadInput]:
        """Raises _Died, _TookTooLong, _TalkedNonsense, DecoderUnavailable."""
        with self._places:
            with self._lock:
                decoder = self._idle.pop() if self._idle else None
            decoder = decoder or self._start()
            try:
                header, pixels = decoder.ask(request, files, max_body_bytes=3 * _most_pixels(request) * len(files))
                pictures = _pictures(header, pixels, len(files))
            except (_Died, _TookTooLong, _TalkedNonsense):
                decoder.kill()
                with self._lock:
                    self._alive.discard(decoder)
                raise
            self._keep(decoder, self._idle.append)
        return pictures

    def _start(self) -> _Decoder:
        try:
            decoder = self._starter.submit(_Decoder, self._module, self._memory_bytes, self._seconds).result()
        except (OSError, RuntimeError) as error:  # no memory or no process left; the pool is closed
            raise DecoderUnavailable(f"no decoder process starts: {error}") from error
        if not self._keep(decoder, self._alive.add):
            raise DecoderUnavailable("the decoders are closed")
        return decoder

    def _keep(self, decoder: _Decoder, where: Callable[[_Decoder], None]) -> bool:
        """Unless the pool was closed meanwhile: then the process ends."""
        with self._lock:
            if not self._closed:
                where(decoder)
                return True
        decoder.kill()
        return False


def _most_pixels(request: Mapping[str, Any]) -> int:
    fit = request["fit"]
    return int(request["max_pixels"] if fit is None else max(fit["image_size"], fit["min_size"]) ** 2)


def _pictures(header: Mapping[str, Any], pixels: bytearray, count: int) -> list[Image.Image | BadInput]:
    """What a decoder answered, of which nothing is taken for granted. Raises _TalkedNonsense."""
    pictures, begin = list[Image.Image | BadInput](), 0
    try:
        for answer in header["pictures"]:
            if "code" in answer:
                pictures.append(_failure(answer))
                continue
            width, height = (int(side) for side in answer["size"])
            end = begin + 3 * width * height
            pictures.append(_picture(width, height, pixels[begin:end]))
            begin = end
        if (len(pictures), begin) != (count, len(pixels)):
            raise ValueError("these are not their pixels")
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise _TalkedNonsense from error
    return pictures


def _picture(width: int, height: int, pixels: bytearray) -> Image.Image:
    if min(width, height) < 1 or 3 * width * height != len(pixels):
        raise ValueError("these are not its pixels")
    return Image.frombytes("RGB", (width, height), bytes(pixels))


def _failure(answer: Mapping[str, Any]) -> BadInput:
    if answer["code"] not in ("image_unreadable", "image_too_large"):
        raise ValueError("a decoder does not fail like this")
    return BadInput(answer["code"], str(answer["message"]))
