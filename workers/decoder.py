"""The process in which strangers' pictures are decoded, so that one that kills its decoder kills no worker.

    python -m workers.decoder PARENT_PID MEMORY_BYTES SECONDS

Its standard input is a socket to its worker. A request is a header and the bytes of some files, one behind the other;
the answer is a header, which has of each its size or its failure, and the pixels. It loads Pillow and numpy, not torch,
and ends when its worker does.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import resource
import signal
import socket
import struct
import sys
import time
from collections.abc import Mapping
from typing import Any

from janus_core.processing.images import ImageSettings, fit
from workers.errors import BadInput
from workers.images import decode_image

HEAD = struct.Struct("!II")  # bytes of the header, bytes of the body
MAX_HEADER_BYTES = 2**18
MAX_OPEN_FILES = 16
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def send_frame(peer: socket.socket, header: Mapping[str, Any], body: bytes = b"") -> None:
    """Raises OSError, and TimeoutError where the socket has a timeout."""
    text = json.dumps(header).encode()
    peer.sendall(b"".join((HEAD.pack(len(text), len(body)), text, body)))


def receive_frame(
    peer: socket.socket, *, max_body_bytes: int, until: float | None = None
) -> tuple[dict[str, Any], bytearray]:
    """The next header and its body.

    Args:
        until: of `time.monotonic()`; None waits for ever.
    Raises:
        EOFError: the other side is gone. TimeoutError. ValueError, RecursionError: it does not speak this language.
    """
    header_bytes, body_bytes = HEAD.unpack(_receive(peer, HEAD.size, until))
    if header_bytes > MAX_HEADER_BYTES or body_bytes > max_body_bytes:
        raise ValueError(f"a frame of {header_bytes} + {body_bytes} bytes")
    header = json.loads(_receive(peer, header_bytes, until))
    if not isinstance(header, dict):
        raise ValueError("a frame without a header")
    return header, _receive(peer, body_bytes, until)


def _receive(peer: socket.socket, num_bytes: int, until: float | None) -> bytearray:
    data = bytearray(num_bytes)
    room = memoryview(data)
    while room:
        if until is not None:
            peer.settimeout(max(until - time.monotonic(), 0.001))
        received = peer.recv_into(room)
        if received == 0:
            raise EOFError
        room = room[received:]
    return data


def answer(request: Mapping[str, Any], place: str, data: bytes) -> tuple[dict[str, Any], bytes]:
    """A picture's size and pixels, or a failure's code and message."""
    try:
        picture = decode_image(data, place=place, max_pixels=request["max_pixels"])
        if request["fit"] is not None:
            picture = fit(picture, ImageSettings(**request["fit"]))
        return {"size": picture.size}, picture.tobytes()
    except BadInput as error:
        return {"code": error.code, "message": str(error)[:2000]}, b""
    except MemoryError:
        message = (
            f"{place} takes more memory than this server gives to one image (JANUS_DECODE_MEMORY_BYTES). Shrink it."
        )
        return {"code": "image_too_large", "message": message}, b""
    except Exception as error:
        message = f"{place} cannot be scaled ({type(error).__name__}: {error})."
        return {"code": "image_unreadable", "message": message[:2000]}, b""


def serve(worker: socket.socket, *, max_body_bytes: int, seconds: float) -> None:
    """Answer until the worker is gone. A picture that takes longer than `seconds` of CPU time ends this process."""
    send_frame(worker, {"ready": True})
    _fall_silent()
    while True:
        try:
            request, data = receive_frame(worker, max_body_bytes=max_body_bytes)
        except EOFError:
            return
        answers, begin = [], 0
        for place, num_bytes in request["files"]:
            _set_limit(resource.RLIMIT_CPU, math.ceil(time.process_time() + seconds))
            answers.append(answer(request, place, bytes(data[begin : begin + num_bytes])))
            begin += num_bytes
        send_frame(worker, {"pictures": [header for header, _ in answers]}, b"".join(pixels for _, pixels in answers))


def end_with(parent_pid: int) -> None:
    """Let the kernel end this process with the thread that started it; elsewhere the closed socket does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent_pid:
        sys.exit(1)


def _fall_silent() -> None:
    """libtiff and Pillow tell standard error what they think of a file, which is nothing for the worker's log."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _set_limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def main(parent_pid: int, memory_bytes: int, seconds: float) -> int:
    end_with(parent_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the worker decides
    _set_limit(resource.RLIMIT_AS, memory_bytes)
    _set_limit(resource.RLIMIT_CORE, 0)
    _set_limit(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    with socket.socket(fileno=0) as worker:
        try:
            serve(worker, max_body_bytes=memory_bytes, seconds=seconds)
        except (BrokenPipeError, ConnectionResetError):
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
