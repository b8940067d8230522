"""A decoder that some pictures kill, stop or take over, as a hole in a library would let them."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workers import decoder

answer = decoder.answer


def poisoned(request: Mapping[str, Any], place: str, data: bytes) -> tuple[dict[str, Any], bytes]:
    kind, _, rest = data.partition(b":")
    if kind == b"die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == b"die once" and not Path(rest.decode()).exists():
        Path(rest.decode()).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == b"die once":
        return {"size": [1, 1]}, b"abc"
    if kind == b"hang":
        time.sleep(600)
    while kind == b"spin":
        pass
    if kind == b"bytes":
        os.write(0, rest * 1000)
    if kind == b"header":
        return eval(rest), b"abc"
    return answer(request, place, data)


if __name__ == "__main__":
    decoder.answer = poisoned
    raise SystemExit(decoder.main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
