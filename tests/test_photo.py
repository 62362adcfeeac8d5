"""Reading and writing photos: kinds, colours, orientation, limits, broken files, metadata."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from model.errors import (
    PictureError,
    PictureTooLargeError,
    PictureUnreadableError,
    PictureUnsupportedError,
)
from model.photo import DIGITAL_SOURCE_TYPE, Photo, PhotoFormat, Pixels, read_photo, write_photo

ROOT = Path(__file__).parent.parent
HEIC = ROOT / "samples" / "turned.heic"
WRITTEN = [PhotoFormat.PNG, PhotoFormat.JPEG, PhotoFormat.WEBP, PhotoFormat.AVIF]


def portrait() -> Image.Image:
    """Return the upper part of the sample photo, 96 x 128, upright."""
    return (
        Image.open(ROOT / "samples" / "astronaut.png")
        .convert("RGB")
        .resize((128, 128))
        .crop((16, 0, 112, 128))
    )


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return the picture as a file of Pillow's."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def difference(one: Pixels, other: Pixels) -> float:
    """Return the mean difference of two pictures, in levels."""
    return float(np.abs(one.astype(float) - other.astype(float)).mean())


def chunk(kind: bytes, body: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *, extra: bytes = b"") -> bytes:
    """Return a PNG written chunk by chunk, for the kinds that Pillow reads and cannot write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    return (
        signature + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("kind", "options", "expected", "tolerance"),
    [
        ("JPEG", {"quality": 95}, PhotoFormat.JPEG, 4.0),
        ("JPEG", {"quality": 95, "progressive": True}, PhotoFormat.JPEG, 4.0),
        ("PNG", {}, PhotoFormat.PNG, 0.0),
        ("WEBP", {"lossless": True}, PhotoFormat.WEBP, 0.0),
        ("AVIF", {"quality": 95}, PhotoFormat.AVIF, 4.0),
        ("TIFF", {}, PhotoFormat.TIFF, 0.0),
        ("TIFF", {"compression": "tiff_lzw"}, PhotoFormat.TIFF, 0.0),
        ("BMP", {}, PhotoFormat.BMP, 0.0),
    ],
)
def test_every_kind_is_read(
    kind: str, options: dict[str, object], expected: PhotoFormat, tolerance: float
) -> None:
    """Each kind of the API gives the pixels that went into it, and its name."""
    photo = read_photo(saved(portrait(), kind, **options))
    assert photo.format is expected
    assert photo.alpha is None
    assert photo.pixels.dtype == np.uint8
    assert difference(photo.pixels, np.asarray(portrait())) <= tolerance


def test_heic_is_turned_once() -> None:
    """A HEIC file that is stored on its side, and says so twice (irot and EXIF), comes out upright."""
    photo = read_photo(HEIC.read_bytes())
    upright = portrait_of_heic()
    assert photo.format is PhotoFormat.HEIC
    assert photo.pixels.shape == (160, 128, 3)
    assert difference(photo.pixels, upright) < 6


def portrait_of_heic() -> Pixels:
    """Return what went into the HEIC sample."""
    image = (
        Image.open(ROOT / "samples" / "astronaut.png")
        .convert("RGB")
        .resize((160, 160))
        .crop((16, 0, 144, 160))
    )
    return np.asarray(image)


TURNED_BACK = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", TURNED_BACK)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_orientation_is_applied_once(kind: str, orientation: int) -> None:
    """All eight EXIF orientations come out upright, in every kind that holds EXIF."""
    turn = TURNED_BACK[orientation]
    stored = portrait() if turn is None else portrait().transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    photo = read_photo(saved(stored, kind, exif=exif))
    assert photo.pixels.shape == (128, 96, 3)
    assert difference(photo.pixels, np.asarray(portrait())) < 6


@pytest.mark.parametrize("orientation", [0, 9, 4711])
def test_orientations_that_do_not_exist_are_ignored(orientation: int) -> None:
    """An orientation that EXIF does not know leaves the picture as it is stored."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.array_equal(read_photo(saved(portrait(), "PNG", exif=exif)).pixels, np.asarray(portrait()))


@pytest.mark.parametrize("exif", [b"Exif\x00\x00", b"Exif\x00\x00MM\x00*\xff\xff\xff\xff", b"\x00" * 40])
def test_broken_exif_does_no_harm(exif: bytes) -> None:
    """EXIF that cannot be read leaves the pixels readable."""
    assert read_photo(saved(portrait(), "JPEG", exif=exif)).pixels.shape == (128, 96, 3)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(kind: str) -> None:
    """CMYK, also as Adobe inverts it in JPEG, keeps its colours: red is red and white white."""
    colours = Image.new("RGB", (64, 32), "white")
    colours.paste((255, 0, 0), (0, 0, 32, 32))
    photo = read_photo(saved(colours.convert("CMYK"), kind))
    assert difference(photo.pixels, np.asarray(colours)) < 2


def test_profile_of_another_colour_space_is_converted() -> None:
    """A Lab TIFF becomes the colours it names, and a profile other than sRGB changes the pixels."""
    lab = ImageCms.profileToProfile(
        portrait(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    assert difference(read_photo(saved(lab, "TIFF")).pixels, np.asarray(portrait())) < 3
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = profile.index(b"rXYZ"), profile.index(b"bXYZ")
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    swapped = read_photo(saved(portrait(), "PNG", icc_profile=bytes(profile)))
    assert difference(swapped.pixels, np.asarray(portrait())[..., ::-1]) < 2


def test_srgb_profile_changes_nothing() -> None:
    """A picture that says it is sRGB keeps its pixels bit for bit."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo = read_photo(saved(portrait(), "PNG", icc_profile=profile))
    assert np.array_equal(photo.pixels, np.asarray(portrait()))


@pytest.mark.parametrize("profile", [b"not a profile", b"\x00" * 200])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_broken_profile_counts_as_srgb(mode: str, profile: bytes) -> None:
    """A profile that cannot be read, or of another colour space, is no error."""
    image = portrait().convert(mode)
    photo = read_photo(saved(image, "PNG", icc_profile=profile))
    assert np.array_equal(photo.pixels, np.asarray(image.convert("RGB")))


def test_rgb_profile_on_grey_counts_as_srgb() -> None:
    """A grey picture with an RGB profile stays the grey it is."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    grey = portrait().convert("L")
    photo = read_photo(saved(grey, "PNG", icc_profile=profile))
    assert np.array_equal(photo.pixels, np.asarray(grey.convert("RGB")))


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA"])
def test_modes_become_rgb_and_alpha(mode: str) -> None:
    """Grey, 1-bit, palette and alpha pictures give their colours, and their alpha unchanged."""
    image = portrait().convert(mode)
    if mode in {"LA", "RGBA"}:
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    photo = read_photo(saved(image, "PNG"))
    assert np.array_equal(photo.pixels, np.asarray(image.convert("RGB")))
    if mode in {"LA", "RGBA"}:
        assert photo.alpha is not None
        assert np.array_equal(photo.alpha, np.asarray(image.getchannel("A")))
    else:
        assert photo.alpha is None


def test_palette_with_transparency() -> None:
    """Transparent palette entries become alpha 0, the others 255."""
    image = portrait().convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    photo = read_photo(saved(image, "PNG", transparency=3))
    assert photo.alpha is not None
    assert np.array_equal(photo.alpha == 0, np.asarray(image) == 3)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_key_colour_is_transparent(mode: str) -> None:
    """PNG's tRNS for grey and RGB makes that colour transparent and no other."""
    image = Image.new(mode, (4, 2), "black")
    image.paste("white", (0, 0, 2, 2))
    photo = read_photo(saved(image, "PNG", transparency=255 if mode == "L" else (255, 255, 255)))
    assert photo.alpha is not None
    assert photo.alpha.tolist() == [[0, 0, 255, 255]] * 2


def test_16_bit_grey() -> None:
    """16-bit grey, PNG and TIFF, is scaled to 8 bits by 257, and its key colour becomes alpha."""
    levels = np.array([[0, 257 * 100, 65_535]], dtype=np.uint16)
    for kind in ("PNG", "TIFF"):
        assert read_photo(saved(Image.fromarray(levels), kind)).pixels[0, :, 0].tolist() == [0, 100, 255]
    rows = b"\x00" + levels.astype(">u2").tobytes()
    photo = read_photo(png(3, 1, 16, 0, rows, extra=chunk(b"tRNS", struct.pack(">H", 257 * 100))))
    assert photo.alpha is not None
    assert photo.alpha.tolist() == [[255, 0, 255]]


def test_16_bit_colour() -> None:
    """16-bit RGB and RGBA keep their upper eight bits."""
    colours = np.array([[[0, 0x80FF, 0xFFFF], [0x1234, 0xABCD, 0x00FF]]], dtype=np.uint16)
    photo = read_photo(png(2, 1, 16, 2, b"\x00" + colours.astype(">u2").tobytes()))
    assert np.abs(photo.pixels.astype(int) - (colours >> 8)).max() <= 1
    with_alpha = np.concatenate([colours, np.array([[[0xFFFF], [0x4000]]], dtype=np.uint16)], axis=2)
    photo = read_photo(png(2, 1, 16, 6, b"\x00" + with_alpha.astype(">u2").tobytes()))
    assert photo.alpha is not None
    assert photo.alpha.tolist() == [[255, 64]]


@pytest.mark.parametrize("white", [1.0, 255.0])
def test_float_tiff(white: float) -> None:
    """Floats up to 1 and up to 255 are both read as dark to light, and values that are none as dark."""
    levels = np.array([[0.0, 0.5, 1.0, np.nan]], dtype=np.float32) * white
    pixels = read_photo(saved(Image.fromarray(levels), "TIFF")).pixels
    assert pixels[0, :, 1].tolist() == [0, 128, 255, 0]


def test_first_frame_of_an_animation() -> None:
    """Of an animation the first frame is read, whatever follows."""
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    for kind in ("PNG", "WEBP", "AVIF", "TIFF"):
        photo = read_photo(saved(frames[0], kind, save_all=True, append_images=frames[1:]))
        assert photo.pixels[8, 8, 0] > 240
        assert photo.pixels[8, 8, 1:].max() < 15


def test_phone_jpeg_with_a_second_picture_is_a_jpeg() -> None:
    """A multi-picture JPEG (MPO) gives its first picture and is written as JPEG again."""
    source = saved(portrait(), "MPO", save_all=True, append_images=[Image.new("RGB", (64, 64))])
    photo = read_photo(source)
    assert photo.format is PhotoFormat.JPEG
    assert photo.pixels.shape == (128, 96, 3)


def test_too_many_pixels_are_refused_from_the_header() -> None:
    """A header that promises 91 megapixels is refused by it: the pixels are not even in the file."""
    with pytest.raises(PictureTooLargeError, match=r"^the picture has 91 megapixels, the limit is 50$"):
        read_photo(png(9_100, 10_000, 8, 2, b""))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF", "BMP"])
def test_the_limit_holds_in_every_kind(kind: str) -> None:
    """One pixel over the limit is refused, the limit itself is not."""
    source = saved(Image.new("RGB", (100, 10)), kind)
    assert read_photo(source, max_pixels=1_000).pixels.shape == (10, 100, 3)
    with pytest.raises(PictureTooLargeError, match=r"has 0\.001 megapixels, the limit is 0\.000999"):
        read_photo(source, max_pixels=999)


def test_the_limit_holds_for_heic() -> None:
    """HEIC is measured from its header too."""
    with pytest.raises(PictureTooLargeError, match=r"the limit is 0\.02$"):
        read_photo(HEIC.read_bytes(), max_pixels=20_000)


def test_bombs_and_long_sides_are_refused() -> None:
    """Sizes that Pillow itself refuses, and sides that no JPEG holds, say the limit."""
    with pytest.raises(PictureTooLargeError, match="more than 179 megapixels, the limit is 50"):
        read_photo(png(60_000, 60_000, 8, 2, b""))
    with pytest.raises(PictureTooLargeError, match="70000 x 1 pixels, the limit for a side is 65500"):
        read_photo(png(70_000, 1, 8, 0, b""))


def test_text_bombs_are_refused() -> None:
    """A PNG whose text chunk inflates to 100 MB is refused, not inflated."""
    bomb = chunk(b"zTXt", b"k\x00\x00" + zlib.compress(b"\x00" * 100_000_000, 9))
    with pytest.raises(PictureUnreadableError):
        read_photo(png(1, 1, 8, 2, b"\x00\x01\x02\x03", extra=bomb))


def test_endless_progressive_jpegs_are_refused() -> None:
    """A progressive JPEG that asks for hundreds of passes is refused by their number."""
    source = saved(portrait(), "JPEG", progressive=True)
    last = source.rindex(b"\xff\xda")
    with pytest.raises(PictureUnreadableError, match="scans, the limit is 100"):
        read_photo(source[:-2] + source[last:-2] * 200 + source[-2:])


@pytest.mark.parametrize(
    "source", [b"", b"hello", b"GIF89a\x01\x00\x01\x00", b"%PDF-1.7", b"<svg/>", b"\x00" * 4096]
)
def test_other_files_are_refused(source: bytes) -> None:
    """What is not a picture of our kinds is named as such, a GIF among them."""
    with pytest.raises(PictureUnsupportedError, match="not a picture we read"):
        read_photo(source)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "HEIC"])
def test_cut_and_corrupt_files_never_crash(kind: str) -> None:
    """Files cut anywhere, or with bytes changed, are read or are a PictureError; most cuts are noticed."""
    whole = HEIC.read_bytes() if kind == "HEIC" else saved(portrait(), kind)
    with pytest.raises(PictureError):
        read_photo(whole[: len(whole) // 2])
    randomness = np.random.default_rng(4711)
    for _ in range(60):
        broken = bytearray(whole)
        for place in randomness.integers(0, min(len(whole), 2_000), 8):
            broken[place] = randomness.integers(256)
        try:
            photo = read_photo(bytes(broken[: randomness.integers(1, len(whole))]), max_pixels=1_000_000)
        except PictureError:
            continue
        assert photo.pixels.dtype == np.uint8


SECRETS = (b"SecretCamera", b"SecretComment", b"SecretPerson", b"SecretMaker", b"Exif", b"GPS", b"48.8583")


def with_metadata(kind: str) -> bytes:
    """Return the portrait with GPS, camera, maker note, comment, XMP and a JPEG thumbnail."""
    exif = Image.Exif()
    exif[0x010F] = "SecretCamera"
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 29.5), 3: "E", 4: (2.0, 17.0, 40.2)})
    exif.get_ifd(0x8769)[0x927C] = b"SecretMaker"
    thumbnail = saved(portrait().resize((24, 32)), "JPEG")
    exif.get_ifd(0x8769)[0x9286] = b"SecretComment" + thumbnail
    options: dict[str, object] = {"exif": exif, "xmp": b"<x:xmpmeta>SecretPerson 48.8583</x:xmpmeta>"}
    if kind == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_text("Comment", "SecretComment")
        text.add_itxt("XML:com.adobe.xmp", "SecretPerson 48.8583")
        options = {"exif": exif, "pnginfo": text}
    if kind in {"JPEG", "TIFF"}:
        options["comment" if kind == "JPEG" else "description"] = "SecretComment"
    return saved(portrait(), kind, **options)


@pytest.mark.parametrize("out", WRITTEN)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "HEIC"])
def test_no_metadata_leaves(kind: str, out: PhotoFormat) -> None:
    """Nothing of an upload's metadata is in a result's bytes: no GPS, thumbnail, maker note, comment, XMP."""
    source = HEIC.read_bytes() if kind == "HEIC" else with_metadata(kind)
    assert b"SecretCamera" in source
    photo = read_photo(source)
    for synthetic in (False, True):
        written = write_photo(photo.pixels, photo.alpha, out, synthetic=synthetic)
        assert not [secret for secret in SECRETS if secret in written]
        assert written.count(b"\xff\xd8\xff") == (out is PhotoFormat.JPEG)  # itself, and no thumbnail
        image = Image.open(io.BytesIO(written))
        assert not image.getexif()
        assert set(image.info) <= {
            "icc_profile", "xmp", "XML:com.adobe.xmp", "jfif", "jfif_version", "jfif_unit", "jfif_density",
            "loop", "background", "timestamp", "duration",
        }  # fmt: skip


@pytest.mark.parametrize("out", WRITTEN)
def test_what_is_written(out: PhotoFormat) -> None:
    """A result reads back, says sRGB, says that a model made it where one did, and is the same every time."""
    pixels = np.asarray(portrait())
    for synthetic in (True, False):
        written = write_photo(pixels, None, out, synthetic=synthetic)
        assert written == write_photo(pixels.copy(), None, out, synthetic=synthetic)
        assert (DIGITAL_SOURCE_TYPE.encode() in written) is synthetic
        image = Image.open(io.BytesIO(written))
        profile = ImageCms.ImageCmsProfile(io.BytesIO(image.info["icc_profile"]))
        assert "sRGB" in str(ImageCms.getProfileDescription(profile))
        back = read_photo(written)
        assert back.format is out
        assert difference(back.pixels, pixels) < (0.1 if out is PhotoFormat.PNG else 3)
        if synthetic:
            assert f"<Iptc4xmpExt:DigitalSourceType>{DIGITAL_SOURCE_TYPE}<".encode() in written


@pytest.mark.parametrize("out", WRITTEN)
def test_alpha_comes_back(out: PhotoFormat) -> None:
    """Alpha is unchanged where the kind holds it; JPEG, which does not, shows the picture on white."""
    pixels = np.asarray(portrait())
    alpha = np.asarray(Image.linear_gradient("L").resize((96, 128)))
    back: Photo = read_photo(write_photo(pixels, alpha, out, synthetic=True))
    if out is PhotoFormat.JPEG:
        assert back.alpha is None
        assert back.pixels[0].min() > 245
        assert difference(back.pixels[-4:], pixels[-4:]) < 6
    else:
        assert back.alpha is not None
        assert difference(back.alpha, alpha) <= (1.0 if out is PhotoFormat.AVIF else 0.0)


def test_kinds_that_are_not_written() -> None:
    """HEIC, TIFF and BMP are refused by name, and so is a side that WebP cannot hold."""
    for unwritten in (PhotoFormat.HEIC, PhotoFormat.TIFF, PhotoFormat.BMP):
        with pytest.raises(PictureUnsupportedError, match=unwritten.value):
            write_photo(np.zeros((2, 2, 3), dtype=np.uint8), None, unwritten, synthetic=False)
    with pytest.raises(PictureTooLargeError, match="the limit for a side in webp is 16383"):
        write_photo(np.zeros((1, 16_384, 3), dtype=np.uint8), None, PhotoFormat.WEBP, synthetic=False)


def test_nothing_happens_at_import() -> None:
    """Importing the module registers no opener with Pillow: HEIC stays unknown to Image.open elsewhere."""
    check = "import model.photo; from PIL import Image; Image.init(); print('HEIF' in Image.OPEN)"
    ran = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
