"""Pictures are decoded in other processes: the same pixels, and what kills a decoder hurts nobody else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest
from PIL import Image

from janus_core.processing.images import ImageSettings, fit
from tests.unit.test_images import encode, huge_png, picture
from workers.decoder_pool import DecoderPool
from workers.errors import BadInput, DecoderUnavailable
from workers.images import decode_image

SETTINGS = ImageSettings(48, 14, (0.5, 0.4, 0.3), (0.5, 0.5, 0.5), 1 / 255, True)
GOOD = encode(picture(), "PNG")
PLACE = "items[3].image"


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    opened = DecoderPool(processes=2, memory_bytes=2**29, seconds=10)
    yield opened
    opened.close()


@pytest.fixture
def poisoned() -> Iterator[DecoderPool]:
    opened = DecoderPool(processes=2, memory_bytes=2**29, seconds=1, module="tests.poisoned_decoder")
    yield opened
    opened.close()


def decode(pool: DecoderPool, data: bytes, max_pixels: int = 1_000_000) -> Image.Image:
    return pool.decode(data, place=PLACE, max_pixels=max_pixels)


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_pixels_are_those_of_decoding_here(pool: DecoderPool, kind: str) -> None:
    data = encode(picture(size=(90, 70)), kind)
    here = decode_image(data, place=PLACE, max_pixels=10**6)
    there = decode(pool, data)
    assert (there.mode, there.size, there.tobytes()) == ("RGB", here.size, here.tobytes())
    fitted = pool.decode(data, place=PLACE, max_pixels=10**6, fit=asdict(SETTINGS))
    expected = fit(here, SETTINGS)
    assert (fitted.size, fitted.tobytes()) == (expected.size, expected.tobytes())


def test_failures_are_those_of_decoding_here(pool: DecoderPool) -> None:
    for data in (b"", b"text", GOOD[:60], huge_png(30_000)):
        with pytest.raises(BadInput) as here:
            decode_image(data, place=PLACE, max_pixels=1_000_000)
        with pytest.raises(BadInput) as there:
            decode(pool, data)
        assert (there.value.code, str(there.value)) == (here.value.code, str(here.value))


def test_processes_are_kept(pool: DecoderPool) -> None:
    decode(pool, GOOD)
    before = children()
    for _ in range(20):
        decode(pool, GOOD)
    assert children() == before


def test_what_takes_more_memory_than_allowed_fails_and_its_process_goes_on() -> None:
    before = children()
    pool = DecoderPool(processes=1, memory_bytes=2**28, seconds=10)
    decode(pool, GOOD)
    (started,) = children() - before
    large = encode(Image.new("RGB", (8000, 6000)), "PNG")
    with pytest.raises(BadInput, match="JANUS_DECODE_MEMORY_BYTES") as caught:
        decode(pool, large, max_pixels=50_000_000)
    assert caught.value.code == "image_too_large"
    assert decode(pool, GOOD).size == (20, 10)
    assert started in children()
    pool.close()
    assert children() == before


def test_what_takes_too_long_fails_and_its_process_is_replaced(poisoned: DecoderPool) -> None:
    for data in (b"spin:", b"hang:"):  # with the CPU, and without it
        with pytest.raises(BadInput, match="more than 1 s") as caught:
            decode(poisoned, data)
        assert caught.value.code == "image_too_large"
        assert decode(poisoned, GOOD).size == (20, 10)


def test_what_kills_its_process_twice_is_the_items_fault(poisoned: DecoderPool, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="SIGSEGV") as caught:
        decode(poisoned, b"die:")
    assert caught.value.code == "image_unreadable"
    assert PLACE in str(caught.value)
    assert decode(poisoned, f"die once:{tmp_path}/died".encode()).size == (1, 1)  # as when memory runs out


def test_others_in_flight_are_not_hurt(poisoned: DecoderPool) -> None:
    def outcome(data: bytes) -> str:
        try:
            return str(decode(poisoned, data).size)
        except BadInput as error:
            return error.code

    with ThreadPoolExecutor(8) as threads:
        outcomes = list(threads.map(outcome, [b"die:" if n % 10 == 5 else GOOD for n in range(40)]))
    assert outcomes == ["image_unreadable" if n % 10 == 5 else "(20, 10)" for n in range(40)]


@pytest.mark.parametrize(
    "answer",
    [
        b"bytes:\x00\x00\x00\x09\x00\x00\x00\x00{broken}!",
        b"bytes:\xff\xff\xff\xff\xff\xff\xff\xff",
        b"header:{'size': [1000000, 1000000]}",
        b"header:{'size': [-1, -1]}",
        b"header:{'size': None}",
        b"header:{'code': 'worker_crashed', 'message': ''}",
        b"header:{'code': 'image_unreadable'}",
        b"header:{}",
    ],
)
def test_decoder_that_was_taken_over_is_not_believed(poisoned: DecoderPool, answer: bytes) -> None:
    with pytest.raises(BadInput) as caught:
        decode(poisoned, answer)
    assert caught.value.code == "image_unreadable"
    assert decode(poisoned, GOOD).size == (20, 10)


def test_process_that_does_not_start_is_nobodys_fault() -> None:
    pool = DecoderPool(processes=1, memory_bytes=2**29, seconds=1, module="tests.no_such_module")
    with pytest.raises(DecoderUnavailable, match="status 1"):
        decode(pool, GOOD)
    pool.close()


def test_decoders_are_told_none_of_the_workers_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JANUS_S3_SECRET_KEY", "hidden")
    before = children()
    pool = DecoderPool(processes=1, memory_bytes=2**29, seconds=1)
    decode(pool, GOOD)
    (started,) = children() - before
    assert not [name for name in psutil.Process(started).environ() if name.startswith(("JANUS_", "AWS_"))]
    pool.close()


WORKER = """
import sys, threading, time
from tests.unit.test_decoder_pool import GOOD, decode
from workers.decoder_pool import DecoderPool
pool = DecoderPool(processes=2, memory_bytes=2**29, seconds=100, module="tests.poisoned_decoder")
threading.Thread(target=decode, args=(pool, b"hang:"), daemon=True).start()
threading.Thread(target=decode, args=(pool, GOOD), daemon=True).start()
while not len(pool._idle):
    time.sleep(0.01)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of others does not end children with their parent")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_worker_that_ends_leaves_no_decoder_behind(number: signal.Signals) -> None:
    worker = subprocess.Popen([sys.executable, "-c", WORKER], stdout=subprocess.PIPE, env=dict(os.environ))
    assert worker.stdout is not None
    assert worker.stdout.readline() == b"ready\n"
    started = psutil.Process(worker.pid).children(recursive=True)
    assert len(started) == 2
    worker.send_signal(number)
    worker.wait()
    worker.stdout.close()
    _, alive = psutil.wait_procs(started, timeout=10)
    assert not alive


def test_who_waits_for_a_picture_while_the_pool_is_closed_is_not_to_blame() -> None:
    pool = DecoderPool(processes=1, memory_bytes=2**29, seconds=60, module="tests.poisoned_decoder")
    decode(pool, GOOD)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(decode, pool, b"hang:")
        while pool._idle:
            time.sleep(0.01)
        pool.close()
        with pytest.raises(DecoderUnavailable):
            waiting.result(10)


def test_closed_pool_has_no_process_left() -> None:
    before = children()
    pool = DecoderPool(processes=3, memory_bytes=2**29, seconds=1)
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda _: decode(pool, GOOD), range(12)))
    assert children() - before
    pool.close()
    deadline = time.monotonic() + 5
    while children() - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert children() == before
