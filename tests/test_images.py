"""Photos as bytes: every kind that comes, and every way in which one can be damaged."""

import io
import zlib

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from making import declaring, encoded, jpeg, photo
from PIL import Image, ImageOps

from bincount.data.images import (
    MOST_PIXELS,
    Pixels,
    UnreadablePhoto,
    decode_jpeg,
    encode_jpeg,
    read_photo,
    shrink,
    stored_jpeg,
)

ORIENTATION = 0x0112

#: How far a decoded JPEG may be from what was encoded, on average and in 0..255.
LOSS = 3.0


def apart(one: Pixels, other: Pixels) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def complaint(content: bytes) -> str:
    with pytest.raises(UnreadablePhoto) as caught:
        read_photo(content)
    reason = str(caught.value)
    assert reason
    assert "\n" not in reason
    return reason


def read_or_none(content: bytes) -> Pixels | None:
    """The photo, or None where it is unreadable; any other error is a bug."""
    try:
        return read_photo(content)
    except UnreadablePhoto:
        return None


def noted(orientation: int, image: Pixels) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return encoded(image, quality=95, exif=exif)


# --- every kind that comes ----------------------------------------------------------------------------


def test_a_jpeg_is_read_as_height_width_rgb() -> None:
    read = read_photo(jpeg(48, 36, quality=95))
    assert read.dtype == np.uint8
    assert read.shape == (36, 48, 3)
    assert read.flags.writeable
    assert apart(read, photo(48, 36)) < LOSS


def test_a_png_is_read_exactly() -> None:
    read = read_photo(encoded(photo(), "PNG"))
    assert np.array_equal(read, photo())
    assert read.flags.writeable


@pytest.mark.parametrize(
    "how", [{"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"quality": 5}]
)
def test_a_jpeg_of_any_make_reads_as_pillow_reads_it(how: dict[str, object]) -> None:
    content = jpeg(**how)
    with Image.open(io.BytesIO(content)) as image:
        assert apart(read_photo(content), np.array(image.convert("RGB"))) < 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_upright(orientation: int) -> None:
    content = noted(orientation, photo(48, 32))
    with Image.open(io.BytesIO(content)) as image:
        upright = np.array(ImageOps.exif_transpose(image))
    assert upright.shape[:2] == ((32, 48) if orientation < 5 else (48, 32))
    assert apart(read_photo(content), upright) < 1
    assert np.array_equal(decode_jpeg(content), read_photo(content))


@pytest.mark.parametrize("orientation", [0, 9, 4000])
def test_an_orientation_that_means_nothing_is_passed_over(orientation: int) -> None:
    assert read_photo(noted(orientation, photo(48, 32))).shape == (32, 48, 3)


def test_a_broken_exif_note_loses_no_photo() -> None:
    content = noted(6, photo(48, 32))
    place = content.index(b"Exif\0\0") + 6
    broken = content[:place] + b"\xff" * 20 + content[place + 20 :]
    assert read_photo(broken).shape == (32, 48, 3)


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_a_jpeg_in_grey_or_print_colours_becomes_rgb(mode: str) -> None:
    image = Image.fromarray(photo()).convert(mode)
    assert apart(read_photo(encoded(image, quality=95)), np.array(image.convert("RGB"))) < LOSS


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_a_png_of_any_mode_becomes_rgb(mode: str) -> None:
    image = Image.fromarray(photo()).convert(mode)
    assert np.array_equal(read_photo(encoded(image, "PNG")), np.array(image.convert("RGB")))


def test_a_palette_with_transparency_is_read_without_it() -> None:
    image = Image.fromarray(photo()).quantize(16)
    content = encoded(image, "PNG", transparency=bytes([0, 128] + [255] * 14))
    assert np.array_equal(read_photo(content), np.array(image.convert("RGB")))


def test_16_bits_of_grey_keep_their_brightness() -> None:
    grey = np.linspace(0, 65535, 32 * 40).reshape(32, 40).astype(np.uint16)
    read = read_photo(encoded(Image.fromarray(grey), "PNG"))
    assert np.array_equal(read, np.repeat((grey >> 8).astype(np.uint8)[..., None], 3, axis=2))


# --- damage -------------------------------------------------------------------------------------------


def test_an_empty_file_is_unreadable() -> None:
    assert complaint(b"") == "the file is empty (0 bytes)"


@pytest.mark.parametrize("content", [b"GIF89a", b"<html>", b"\x00" * 100, b"BM" + bytes(60)])
def test_another_kind_of_file_is_unreadable(content: bytes) -> None:
    assert complaint(content) == "not a JPEG or PNG"


@pytest.mark.parametrize("how", [{}, {"progressive": True}, {"quality": 100}])
def test_a_jpeg_cut_anywhere_is_unreadable(how: dict[str, object]) -> None:
    content = jpeg(64, 48, **how)
    for end in range(1, len(content)):
        complaint(content[:end])


def test_a_png_cut_anywhere_is_unreadable_or_whole() -> None:
    content = encoded(photo(), "PNG")
    whole = [end for end in range(1, len(content), 3) if np.array_equal(read_or_none(content[:end]), photo())]
    unreadable = [end for end in range(1, len(content), 3) if read_or_none(content[:end]) is None]
    assert len(whole) + len(unreadable) == len(range(1, len(content), 3))
    assert max(unreadable) > len(content) - 40


def test_a_jpeg_with_a_hole_in_the_middle_is_unreadable_and_not_half_a_photo() -> None:
    content = jpeg(64, 48, quality=95)
    middle = len(content) * 2 // 3
    assert complaint(content[:middle] + b"\xff\xd9" * 30 + content[middle + 60 :]).startswith(
        "damaged or truncated"
    )


@given(
    st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"])
)
def test_random_bytes_are_a_photo_or_unreadable(noise: bytes, start: bytes) -> None:
    read_or_none(start + noise)


@settings(max_examples=300)
@given(
    st.sampled_from([jpeg(), noted(6, photo()), encoded(photo(), "PNG"), jpeg(progressive=True)]),
    st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=12)), min_size=1, max_size=4),
)
def test_a_damaged_photo_is_a_photo_or_unreadable(content: bytes, damage: list[tuple[float, bytes]]) -> None:
    for where, noise in damage:
        place = int(where * len(content))
        content = content[:place] + noise + content[place + len(noise) :]
    read = read_or_none(content)
    assert read is None or (read.dtype == np.uint8 and read.ndim == 3 and read.shape[2] == 3)


@pytest.mark.parametrize(("width", "height"), [(65500, 65500), (9400, 9400), (65000, 1300)])
def test_a_jpeg_that_declares_a_huge_size_is_refused_before_it_is_decoded(width: int, height: int) -> None:
    assert complaint(declaring(jpeg(), width, height)) == f"{width}x{height} pixels are too many"


@pytest.mark.parametrize(("width", "height"), [(40000, 40000), (9400, 9400), (13000, 13000), (70000, 20)])
def test_a_png_that_declares_a_huge_size_is_refused_before_it_is_decoded(width: int, height: int) -> None:
    content = encoded(photo(), "PNG")
    place = content.index(b"IHDR")
    header = b"IHDR" + width.to_bytes(4) + height.to_bytes(4) + content[place + 12 : place + 17]
    bomb = content[:place] + header + zlib.crc32(header).to_bytes(4) + content[place + 21 :]
    assert width * height > MOST_PIXELS or max(width, height) > 65500
    assert "pixels" in complaint(bomb)


def test_decode_jpeg_refuses_what_is_no_whole_jpeg() -> None:
    for content in (b"", b"\xff\xd8", jpeg()[:-2], jpeg()[:-40], encoded(photo(), "PNG")):
        with pytest.raises(UnreadablePhoto):
            decode_jpeg(content)


# --- what prepare stores ------------------------------------------------------------------------------


@given(st.integers(1, 200), st.integers(1, 200), st.integers(16, 100))
def test_shrinking_gives_the_shortest_side_and_keeps_the_shape(width: int, height: int, side: int) -> None:
    small = shrink(photo(width, height), side)
    if min(width, height) <= side:
        assert np.array_equal(small, photo(width, height))
        return
    assert min(small.shape[:2]) == side
    scale = side / min(width, height)
    assert abs(small.shape[0] - height * scale) <= 0.5
    assert abs(small.shape[1] - width * scale) <= 0.5


def test_shrinking_merges_all_pixels_as_pillow_does() -> None:
    image = photo(300, 200)
    small = Image.fromarray(image).resize((96, 64), Image.Resampling.BICUBIC)
    assert np.abs(shrink(image, 64).astype(int) - np.asarray(small)).max() <= 2


def test_shrinking_to_none_keeps_the_photo() -> None:
    image = photo(300, 200)
    assert shrink(image, None) is image


@given(st.integers(16, 90), st.integers(16, 90), st.integers(16, 60) | st.none(), st.integers(1, 100))
def test_a_stored_photo_has_the_size_that_is_told(
    width: int, height: int, side: int | None, quality: int
) -> None:
    stored, stored_width, stored_height = stored_jpeg(jpeg(width, height), side, quality)
    assert decode_jpeg(stored).shape == (stored_height, stored_width, 3)
    assert min(stored_width, stored_height) == min(width, height, side or 90)


@pytest.mark.parametrize("side", [None, 32, 100])
@pytest.mark.parametrize("how", [{}, {"quality": 30}, {"progressive": True}, {"comment": b"bin 7"}])
def test_a_jpeg_that_needs_no_change_keeps_its_very_bytes(side: int | None, how: dict[str, object]) -> None:
    content = jpeg(**how)
    assert stored_jpeg(content, side, 90) == (content, 40, 32)


def test_a_grey_jpeg_and_one_noted_as_upright_keep_their_bytes() -> None:
    for content in (encoded(Image.fromarray(photo()).convert("L")), noted(1, photo())):
        assert stored_jpeg(content, None, 90)[0] == content


@pytest.mark.parametrize(
    "content",
    [
        noted(6, photo()),
        noted(3, photo()),
        encoded(Image.fromarray(photo()).convert("CMYK"), quality=95),
        encoded(photo(), "PNG"),
        encoded(Image.fromarray(photo()).convert("RGBA"), "PNG"),
    ],
)
def test_what_a_plain_decoder_would_show_otherwise_is_encoded_anew(content: bytes) -> None:
    stored, width, height = stored_jpeg(content, None, 95)
    assert stored != content
    assert simplejpeg.decode_jpeg_header(stored)[:4] == (height, width, "YCbCr", "420")
    assert apart(simplejpeg.decode_jpeg(stored), read_photo(content)) < LOSS


def test_a_larger_photo_is_shrunk_to_a_small_baseline_jpeg() -> None:
    stored, width, height = stored_jpeg(jpeg(400, 300), 64, 90)
    assert (width, height) == (85, 64)
    assert b"\xff\xc0" in stored
    assert apart(decode_jpeg(stored), shrink(read_photo(jpeg(400, 300)), 64)) < LOSS


def test_an_unreadable_photo_is_not_stored() -> None:
    for content in (b"", b"no photo", jpeg()[:-30]):
        with pytest.raises(UnreadablePhoto):
            stored_jpeg(content, None, 90)


def test_the_same_photo_is_stored_as_the_same_bytes() -> None:
    assert stored_jpeg(jpeg(90, 80), 40, 90) == stored_jpeg(jpeg(90, 80), 40, 90)
    assert len(encode_jpeg(photo(90, 80), 95)) > len(encode_jpeg(photo(90, 80), 40))
