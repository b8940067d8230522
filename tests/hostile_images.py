"""Damaged, hostile and odd image files, made from real ones by a seed: the same seed gives the same files."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, PngImagePlugin

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MODES = (
    "1",
    "L",
    "P",
    "RGB",
    "RGBA",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "F",
    "LA",
    "PA",
    "La",
    "RGBa",
    "RGBX",
    "I;16",
)


def make_images(seed: int) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each file."""
    rng = random.Random(seed)
    whole = {kind: _encode(_picture(rng, 90, 60), kind) for kind in FORMATS}
    whole["progressive"] = _encode(_picture(rng, 90, 60), "JPEG", progressive=True)
    whole["deflate tiff"] = _encode(_picture(rng, 90, 60), "TIFF", compression="tiff_adobe_deflate")
    whole["lzw tiff"] = _encode(_picture(rng, 90, 60), "TIFF", compression="tiff_lzw")
    whole["jpeg tiff"] = _encode(_picture(rng, 90, 60), "TIFF", compression="jpeg")
    whole["lossless webp"] = _encode(_picture(rng, 90, 60), "WEBP", lossless=True)
    for kind, data in whole.items():
        yield from _damaged(rng, kind, data)
    for kind in FORMATS:
        yield f"wrong ending {kind}", whole[kind]
    yield from _modes(rng)
    yield from _odd(rng)
    yield from _bombs()
    yield from _tiffs()
    yield from _polyglots(rng, whole)


def _picture(rng: random.Random, width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(rng.randrange(2**32)).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def _encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _damaged(rng: random.Random, kind: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    for number in range(8):
        flipped = bytearray(data)
        for _ in range(1 << rng.randrange(7)):
            flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        yield f"{kind}: bits flipped {number}", bytes(flipped)
    for number in range(5):  # in the header, where the sizes stand
        flipped = bytearray(data)
        for _ in range(4):
            flipped[rng.randrange(min(64, len(data)))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        yield f"{kind}: header changed {number}", bytes(flipped)
    for number in range(5):
        yield f"{kind}: cut off {number}", data[: rng.randrange(1, len(data))]
    place, num_bytes = rng.randrange(len(data)), rng.randrange(1, 200)
    yield f"{kind}: a piece is missing", data[:place] + data[place + num_bytes :]
    yield f"{kind}: a piece stands twice", data[:place] + data[max(place - num_bytes, 0) :]
    yield f"{kind}: a hole of zeros", data[:place] + bytes(num_bytes) + data[place + num_bytes :]
    yield f"{kind}: noise behind its head", data[:32] + rng.randbytes(500)
    yield f"{kind}: twice", data + data


def _modes(rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """Every mode of Pillow, in every format that takes it."""
    picture = _picture(rng, 40, 30)
    for mode in MODES:
        try:
            converted = picture.convert("L").convert(mode) if mode in ("I;16", "La", "PA") else picture.convert(mode)
        except ValueError:
            converted = Image.new(mode, (40, 30))
        converted.info.clear()  # the profile of LAB holds the time at which it was made
        for kind in FORMATS:
            try:
                yield f"mode {mode} as {kind}", _encode(converted, kind)
            except (OSError, ValueError, KeyError):
                continue  # the format has no such mode


def _odd(rng: random.Random) -> Iterator[tuple[str, bytes]]:
    picture = _picture(rng, 40, 30)
    frames = [_picture(rng, 40, 30) for _ in range(5)]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        yield f"animated {kind}", _encode(picture, kind, save_all=True, append_images=frames)
    for orientation in range(10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield f"orientation {orientation}", _encode(picture, "JPEG", exif=exif)
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        yield f"garbage for a colour profile in {kind}", _encode(picture, kind, icc_profile=rng.randbytes(3000))
    for kind in ("JPEG", "PNG", "WEBP"):
        yield f"garbage for EXIF in {kind}", _encode(picture, kind, exif=b"Exif\0\0" + rng.randbytes(3000))
    yield "palette with transparency", _encode(picture.quantize(9), "PNG", transparency=bytes(range(9)))
    yield "palette with one transparent colour", _encode(picture.quantize(9), "GIF", transparency=3)
    yield "one transparent grey", _encode(picture.convert("L"), "PNG", transparency=7)
    yield "one transparent colour", _encode(picture, "PNG", transparency=(1, 2, 3))
    yield "one pixel", _encode(Image.new("RGB", (1, 1)), "PNG")
    yield "one row", _encode(Image.new("RGB", (16383, 1)), "WEBP")
    yield "one column", _encode(Image.new("RGB", (1, 60000)), "PNG")
    yield "very wide JPEG", _encode(Image.new("L", (65000, 2)), "JPEG")
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "x" * 100_000, zip=True)
    yield "long text", _encode(picture, "PNG", pnginfo=text)
    for name, size in {"nothing": 0, "a byte": 1, "noise": 5000}.items():
        yield name, rng.randbytes(size)
    for magic in (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"MM\0*", b"RIFF\0\0\0\0WEBPVP8 "):
        yield f"only {magic!r}", magic


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(
    width: int, height: int, *, depth: int, colour: int, data: bytes, before: bytes = b"", interlace: int = 0
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    chunks = _png_chunk(b"IHDR", header) + before + _png_chunk(b"IDAT", data) + _png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _zeros(num_bytes: int) -> bytes:
    packer = zlib.compressobj(9)
    piece = bytes(2**20)
    parts = [packer.compress(piece) for _ in range(num_bytes // 2**20)] + [packer.compress(bytes(num_bytes % 2**20))]
    return b"".join(parts) + packer.flush()


def _bombs() -> Iterator[tuple[str, bytes]]:
    """Small files of huge pictures, or with huge insides."""
    small = _encode(Image.new("RGB", (8, 8)), "PNG")
    for side in (0, 1, 7071, 30_000, 2**16, 2**31 - 1, 2**32 - 1):
        yield f"PNG of {side} px a side", _png(side, side, depth=1, colour=0, data=_zeros(2**20))
        yield f"PNG of 1 x {side} px", _png(1, side, depth=8, colour=0, data=_zeros(2**16))
    yield "PNG of just the pixels allowed", _png(7000, 7000, depth=8, colour=2, data=_zeros(7000 * 21001))
    yield "PNG of 16 bits and just the pixels allowed", _png(7000, 7000, depth=16, colour=6, data=_zeros(7000 * 56001))
    yield (
        "interlaced PNG of just the pixels allowed",
        _png(7000, 7000, depth=8, colour=0, data=_zeros(50_000_000), interlace=1),
    )
    yield "PNG with 100 MB behind its pixels", _png(8, 8, depth=8, colour=0, data=_zeros(10**8))
    for kind in (b"zTXt", b"iCCP", b"iTXt"):
        packed = b"k\0\0" + (b"\1\0\0\0" if kind == b"iTXt" else b"") + _zeros(10**8)
        yield (
            f"PNG whose {kind.decode()} unpacks to 100 MB",
            _png(8, 8, depth=8, colour=0, data=_zeros(72), before=_png_chunk(kind, packed)),
        )
    yield (
        "PNG of many texts",
        _png(8, 8, depth=8, colour=0, data=_zeros(72), before=_png_chunk(b"tEXt", b"k\0" + b"v" * 500) * 20_000),
    )
    yield (
        "PNG that says it has 2 GB",
        small.replace(struct.pack(">I", 13) + b"IHDR", struct.pack(">I", 2**31) + b"IHDR"),
    )
    for width, height in ((65535, 65535), (0, 0), (7000, 7000), (65535, 700)):
        screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
        frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\0;"
        yield f"GIF of {width} x {height} px", screen + frame
    screen = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
    yield (
        "GIF with a frame larger than its screen",
        screen + b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x02\x44\x01\0;",
    )
    yield "GIF of a million blocks", screen + b"!\xfe" + b"\x01x" * 1_000_000 + b"\0;"
    for width, height in ((16384, 16384), (16383, 3000)):
        frame = b"\x9d\x01\x2a" + struct.pack("<HH", width & 0x3FFF, height & 0x3FFF)
        body = b"VP8 " + struct.pack("<I", 1000) + b"\x10\0\0" + frame + bytes(990)
        yield f"WebP of {width} x {height} px", b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body
    canvas = struct.pack("<I", 10) + b"\x02\0\0\0" + b"\xff\xff\xff" * 2
    yield "WebP on a canvas of 2^48 px", b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + canvas
    for width, height in ((2**31 - 1, 2**31 - 1), (-5, -5), (0, 5), (30000, -30000), (7000, -7000)):
        header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
        yield f"BMP of {width} x {height} px", b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header
    for compression in (1, 2, 3, 4, 5):
        header = struct.pack("<IiiHHIIiiII", 40, 5000, 5000, 1, 8, compression, 0, 0, 0, 256, 0)
        data = b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1024) + header + bytes(1024) + b"\xff\x01" * 100_000
        yield f"BMP compressed by {compression}", data
    jpeg = _encode(Image.new("RGB", (64, 64)), "JPEG", progressive=True)
    frame = jpeg.index(b"\xff\xc2") + 5
    for width, height in ((65535, 65535), (0, 0), (7000, 7000)):
        yield f"JPEG of {width} x {height} px", jpeg[:frame] + struct.pack(">HH", height, width) + jpeg[frame + 4 :]
    scan = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    yield "JPEG of 90 scans", jpeg[:-2] + scan * 80 + jpeg[-2:]
    large = _encode(Image.new("RGB", (7000, 7000)), "JPEG", progressive=True)
    scan = large[large.rindex(b"\xff\xda") : -2]
    yield "JPEG of 90 scans over just the pixels allowed", large[:-2] + scan * 80 + large[-2:]
    film = _encode(Image.new("RGB", (64, 64)), "MPO", save_all=True, append_images=[Image.new("RGB", (64, 64))])
    yield "several JPEGs in one file", film
    yield "several JPEGs, the first of 200 scans", film.replace(b"\xff\xd9", scan * 200 + b"\xff\xd9", 1)
    yield "JPEG of 10,000 segments", jpeg[:2] + b"\xff\xe1\x00\x08Exif\0\0" * 10_000 + jpeg[2:]


def _tiff(tags: dict[int, tuple[int, int, int]], tail: bytes = bytes(4), data: bytes = b"") -> bytes:
    """tags: type, count, value by number; `tail` is where the next directory stands."""
    entries = b"".join(struct.pack("<HHII", tag, *value) for tag, value in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + tail + data


def _tiffs() -> Iterator[tuple[str, bytes]]:
    """Directories that point at themselves, and numbers that no picture has."""
    base = {
        256: (4, 1, 8),
        257: (4, 1, 8),
        258: (3, 1, 8),
        259: (3, 1, 1),
        262: (3, 1, 1),
        273: (4, 1, 200),
        279: (4, 1, 64),
    }
    yield "TIFF whose next directory is itself", _tiff(base, struct.pack("<I", 8), bytes(300))
    yield "TIFF whose first directory lies nowhere", b"II*\0" + struct.pack("<I", 2**32 - 1)
    yield "TIFF whose directory is its header", b"II*\0" + struct.pack("<I", 0)
    for tag in (330, 34665, 34853, 40965):
        yield f"TIFF whose tag {tag} points at its own directory", _tiff(base | {tag: (4, 1, 8)}, data=bytes(300))
    for tag in (256, 257, 258, 259, 262, 277, 278, 279, 284, 317, 322, 323):
        for value in (0, 2**16, 2**31 - 1, 2**32 - 1):
            yield f"TIFF whose tag {tag} is {value}", _tiff(base | {tag: (4, 1, value)}, data=bytes(300))
    for tag in (258, 273, 279, 320, 339):
        yield f"TIFF whose tag {tag} has 2^30 values", _tiff(base | {tag: (3, 2**30, 8)}, data=bytes(300))
    for compression in (2, 3, 4, 5, 6, 7, 8, 32773, 32946, 34661, 34712, 34925, 50000, 50001):
        packed = base | {259: (3, 1, compression), 256: (4, 1, 4000), 257: (4, 1, 4000), 278: (4, 1, 4000)}
        yield f"TIFF of noise compressed by {compression}", _tiff(packed, data=bytes(range(256)) * 4)
    yield "TIFF of 60,000 tags", b"II*\0" + struct.pack("<IH", 8, 60_000) + struct.pack("<HHII", 256, 4, 1, 8) * 60_000
    big = b"II+\0" + struct.pack("<HHQ", 8, 0, 16) + struct.pack("<Q", 2**63)
    yield "BigTIFF of 2^63 tags", big
    packed = _zeros(49_000_000)
    tags = base | {256: (4, 1, 7000), 257: (4, 1, 7000), 259: (3, 1, 8), 278: (4, 1, 7000), 279: (4, 1, len(packed))}
    yield (
        "TIFF of just the pixels allowed in one strip",
        _tiff(tags, data=bytes(200 - 8 - 2 - 12 * len(tags) - 4) + packed),
    )


def _polyglots(rng: random.Random, whole: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    tails = {
        "a zip": b"PK\x03\x04" + rng.randbytes(300), "a script": b"<script>alert(1)</script>", "PHP": b"<?php die; ?>",
        "a PDF": b"%PDF-1.7\n%%EOF", "another picture": whole["PNG"],
    }  # fmt: skip
    for name, tail in tails.items():
        yield f"JPEG with {name} behind it", whole["JPEG"] + tail
        yield f"{name} before a GIF", tail + whole["GIF"]
    yield (
        "SVG",
        b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><image href="http://169.254.169.254/"/></svg>',
    )
    yield "EPS", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n(/etc/passwd) (r) file\n"
    yield "PDF", b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF"
    yield "FITS", b"SIMPLE  =                    T" + b" " * 2850
    yield (
        "MVG",
        b"push graphic-context\nviewbox 0 0 1 1\nimage over 0,0 0,0 'https://example.org'\npop graphic-context\n",
    )
    for kind in ("ICO", "PPM", "TGA", "PCX", "SGI", "JPEG2000"):
        yield f"not accepted: {kind}", _encode(Image.new("RGB", (32, 32)), kind)
