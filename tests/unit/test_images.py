"""Decoding: what is accepted comes out as the reference has it, what is not costs its own item."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from workers.errors import BadInput
from workers.images import decode_image


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(data: bytes, max_pixels: int = 50_000_000) -> Image.Image:
    return decode_image(data, place="items[3].image", max_pixels=max_pixels)


def picture(mode: str = "RGB", size: tuple[int, int] = (20, 10)) -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), np.uint8)).convert(mode)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_accepted_formats_are_as_the_reference_decodes_them(kind: str) -> None:
    data = encode(picture(), kind)
    with Image.open(io.BytesIO(data)) as reference:
        assert decode(data).tobytes() == reference.convert("RGB").tobytes()


def test_cmyk_palette_grey_and_alpha_become_rgb() -> None:
    for data in (
        encode(picture("CMYK"), "JPEG"),
        encode(picture("P"), "PNG", transparency=b"\x00\x80"),
        encode(picture("LA"), "PNG"),
        encode(picture("RGBA"), "WEBP"),
        encode(picture("1"), "TIFF"),
    ):
        assert decode(data).mode == "RGB"


def test_palette_transparency_is_dropped_as_the_reference_does() -> None:
    image = picture("P")
    data = encode(image, "PNG", transparency=b"\x00\x80")
    assert decode(data).tobytes() == image.convert("RGB").tobytes()


def test_sixteen_bit_grey_is_scaled_and_not_cut_off() -> None:
    grey = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    decoded = np.asarray(decode(encode(Image.fromarray(grey), "PNG")))
    assert (decoded[..., 0] == (grey >> 8)).all()


def test_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    decoded = decode(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert decoded.getpixel((0, 0)) == (255, 0, 0)


def test_exif_orientation_is_not_applied_as_the_reference_does_not() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encode(picture(size=(20, 10)), "JPEG", exif=exif)).size == (20, 10)


def test_one_pixel() -> None:
    assert decode(encode(Image.new("RGB", (1, 1)), "PNG")).size == (1, 1)


def huge_png(side: int) -> bytes:
    """A valid header of side x side px, one bit a pixel; the data is a few KB of zeros."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    compressor = zlib.compressobj(9)
    row = b"\x00" * (1 + side // 8)
    data = b"".join(compressor.compress(row) for _ in range(side)) + compressor.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "code", "says"),
    [
        (b"", "image_unreadable", "0 bytes"),
        (b"just text", "image_unreadable", "accepted format"),
        (encode(picture(size=(400, 300)), "JPEG")[:-2000], "image_unreadable", "truncated"),
        (encode(picture(), "PNG")[:60], "image_unreadable", "decoded"),
        (encode(picture(), "PCX"), "image_unreadable", "accepted format"),
        (huge_png(30_000), "image_too_large", "30000 x 30000 px (900 MP)"),
    ],
    ids=["empty", "text", "truncated jpeg", "truncated png", "other format", "huge"],
)
def test_bad_image_says_what_is_wrong(data: bytes, code: str, says: str) -> None:
    with pytest.raises(BadInput, match="items") as caught:
        decode(data)
    assert caught.value.code == code
    assert says in str(caught.value)


def test_limit_is_in_the_message() -> None:
    with pytest.raises(BadInput, match="JANUS_MAX_IMAGE_PIXELS"):
        decode(encode(picture(size=(20, 10)), "PNG"), max_pixels=199)


def test_tiff_whose_one_pixel_lies_in_a_huge_tile_is_refused() -> None:
    with pytest.raises(BadInput, match="tiles of 1600 MP"):
        decode(tiled_tiff(40_000))
    assert decode(tiled_tiff(16)).size == (1, 1)


def tiled_tiff(tile_side: int) -> bytes:
    """One grey pixel, stored in one uncompressed tile of 16 x 16 px that claims another size."""
    tags = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 277: 1, 322: tile_side, 323: tile_side, 324: 0, 325: 256}
    directory_bytes = 2 + 12 * len(tags) + 4
    tags[324] = 8 + directory_bytes
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + bytes(256)


def jpeg_with(segments: int = 0, scans: int = 0) -> bytes:
    data = encode(picture(size=(64, 64)), "JPEG", progressive=True)
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    return data[:2] + b"\xff\xe1\x00\x08Exif\0\0" * segments + data[2:-2] + last_scan * scans + data[-2:]


def test_jpeg_of_a_thousand_scans_or_segments_is_refused_before_it_costs_minutes() -> None:
    for data in (jpeg_with(segments=5000), jpeg_with(scans=200)):
        with pytest.raises(BadInput, match="Save it anew"):
            decode(data)
    assert decode(jpeg_with(segments=20, scans=3)).size == (64, 64)


def test_jpeg_of_several_pictures_is_counted_too() -> None:
    film = encode(picture(size=(64, 64)), "MPO", save_all=True, append_images=[picture(size=(64, 64))])
    assert decode(film).size == (64, 64)
    scan = jpeg_with()[jpeg_with().rindex(b"\xff\xda") : -2]
    with pytest.raises(BadInput, match="Save it anew"):
        decode(film.replace(b"\xff\xd9", scan * 200 + b"\xff\xd9", 1))
    with pytest.raises(BadInput, match="Save it anew"):
        decode(film[:2] + b"\xff\xe1\x00\x08Exif\0\0" * 5000 + film[2:])


def test_film_behind_a_motion_photo_is_not_taken_for_segments() -> None:
    film = np.random.default_rng(1).integers(0, 255, 8_000_000, np.uint8).tobytes()
    assert decode(encode(picture(), "JPEG") + film).size == (20, 10)
