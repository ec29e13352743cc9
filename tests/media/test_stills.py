"""Still images: always held, the right way up, whole, and whatever else the file carries."""

import io
import math
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps
from torch import Tensor

from avfusion import MediaError
from avfusion.media import load_media
from tests.media.files import grey, levels_of, write

drawn = settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
FORMATS = ("png", "jpeg", "bmp", "webp", "tiff", "gif", "avif", "ppm", "jp2", "ico")
ORIENTED = ("jpeg", "png", "webp", "tiff", "avif")
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"/></x:xmpmeta>'


def picture(mode: str = "RGB", width: int = 24, height: int = 16) -> Image.Image:
    """Four corners of unlike colours, so that every way of turning it shows."""
    image = Image.new("RGB", (width, height))
    for x in range(width):
        for y in range(height):
            image.putpixel((x, y), (255 * (2 * x // width), 255 * (2 * y // height), 40))
    return image.convert(mode)


def pixels_of(image: Image.Image) -> Tensor:
    rgb = image.convert("RGB")
    pixels = torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8)
    return pixels.view(rgb.height, rgb.width, 3).permute(2, 0, 1)


def profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x112] = orientation
    return tags


@drawn
@given(
    suffix=st.sampled_from(FORMATS),
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    options=st.fixed_dictionaries(
        {}, optional={"frame_rate": st.none() | st.just(8.0), "start": st.just(3.0), "audio": st.booleans()}
    ),
)
def test_every_still_is_held_at_every_time(
    tmp_path: Path, suffix: str, width: int, height: int, options: dict[str, object]
) -> None:
    if suffix == "ico":
        width = height = 32
    path = tmp_path / f"shot.{suffix}"
    image = picture(width=width, height=height)
    image.save(path)
    media = load_media(path, **options)
    assert media.video.spans.tolist() == [[[-math.inf, math.inf]]]
    assert (media.duration, media.waveform, media.skipped) == (0.0, None, ())
    with Image.open(path) as written:
        assert torch.equal(media.video.pixels[0, 0], pixels_of(written))


@drawn
@given(
    suffix=st.sampled_from(ORIENTED),
    orientation=st.integers(1, 8),
    mode=st.sampled_from(("L", "RGB", "RGBA")),
    width=st.integers(2, 30),
    height=st.integers(2, 30),
    size=st.none() | st.tuples(st.integers(1, 30), st.integers(1, 30)),
)
def test_exif_orientation_is_as_pillow_shows_it(
    tmp_path: Path, suffix: str, orientation: int, mode: str, width: int, height: int, size: tuple[int, int] | None
) -> None:
    path = tmp_path / f"shot.{suffix}"
    mode = "RGB" if suffix == "jpeg" and mode == "RGBA" else mode
    picture(mode, width, height).save(path, exif=exif(orientation))
    found = load_media(path, size=size).video.pixels[0, 0]
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        image.load()  # Pillow turns a grey TIFF twice unless it comes from memory, and has been loaded
        shown = ImageOps.exif_transpose(image).convert("RGB")
    if size is not None:
        shown = shown.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    assert torch.equal(found, pixels_of(shown))


@pytest.mark.parametrize("mode", MODES)
def test_every_kind_of_pixel_is_shown(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("shot.tiff" if mode == "CMYK" else "shot.png")
    picture(mode).save(path)
    found = load_media(path).video.pixels[0, 0].float()
    expected = pixels_of(picture(mode)).float()
    assert (found - expected).abs().max() <= 1


def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path) -> None:
    image = Image.new("I;16", (3, 1))
    for place, level in enumerate((0, 32768, 65535)):
        image.putpixel((place, 0), level)
    image.save(tmp_path / "deep.png")
    assert load_media(tmp_path / "deep.png").video.pixels[0, 0, 0, 0].tolist() == [0, 128, 255]


def test_profiles_and_metadata_end_no_interpreter(tmp_path: Path) -> None:
    # In another process: PyAV frees the name of a PNG's colour profile twice.
    paths = []
    for suffix in ORIENTED:
        kinds = {"icc": {"icc_profile": profile()}, "exif": {"exif": exif(5)}, "xmp": {"xmp": XMP}}
        kinds["all"] = kinds["icc"] | kinds["exif"] | kinds["xmp"]
        for name, options in kinds.items():
            paths.append(tmp_path / f"{name}.{suffix}")
            picture().save(paths[-1], **options)
    code = (
        "import sys; from avfusion.media import load_media\n"
        "for path in sys.argv[1:]: print(*load_media(path, frame_rate=None).video.pixels.shape[1:])"
    )
    done = subprocess.run([sys.executable, "-c", code, *paths], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shapes = {path.name: shape for path, shape in zip(paths, done.stdout.splitlines(), strict=True)}
    assert set(shapes.values()) == {"1 3 16 24", "1 3 24 16"}
    assert {name.split(".")[0] for name, shape in shapes.items() if shape == "1 3 24 16"} == {"exif", "all"}


def test_a_profile_in_a_moving_picture_ends_no_interpreter(tmp_path: Path) -> None:
    frames = [picture(), picture().rotate(180)]
    frames[0].save(
        tmp_path / "a.png", save_all=True, append_images=frames[1:], duration=500, icc_profile=profile(), exif=exif(3)
    )
    code = "import sys; from avfusion.media import load_media; print(load_media(sys.argv[1]).video.pixels.shape[1])"
    arguments = [sys.executable, "-c", code, str(tmp_path / "a.png")]
    done = subprocess.run(arguments, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "avif"])
def test_an_animation_is_video(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (32, 24), (level, level, level)) for level in (10, 110, 210)]
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=[500, 300, 200])
    media = load_media(path, frame_rate=None)
    assert levels_of(media.video.pixels[0]) == pytest.approx([10, 110, 210], abs=3)
    assert media.duration == pytest.approx(1.0)
    if suffix != "avif":  # its encoder knows one duration a file
        assert media.video.spans[0, :, 0].tolist() == pytest.approx([0.0, 0.5, 0.8])
    assert levels_of(load_media(path, start=0.9, end=1.0).video.pixels[0]) == pytest.approx([210], abs=3)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tiff"])
def test_one_picture_is_still_however_it_was_saved(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    picture().save(path, save_all=True, duration=700)
    assert load_media(path).video.spans.tolist() == [[[-math.inf, math.inf]]]


def test_the_first_page_and_the_first_of_a_stereo_pair_are_shown(tmp_path: Path) -> None:
    pages = [Image.new("RGB", (32, 24), (level, level, level)) for level in (10, 210)]
    for name in ("a.tiff", "a.mpo"):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
        media = load_media(tmp_path / name)
        assert media.video.pixels.shape[1] == 1
        assert levels_of(media.video.pixels[0]) == pytest.approx([10], abs=2)


@pytest.mark.parametrize("suffix", ["jpeg", "png", "webp", "gif", "avif"])
def test_an_image_cut_short_is_refused(tmp_path: Path, suffix: str) -> None:
    noise = torch.randint(0, 256, (64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    path = tmp_path / f"a.{suffix}"
    Image.frombytes("RGB", (64, 64), bytes(noise.flatten().tolist())).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(MediaError, match=rf"a.{suffix}: "):
        load_media(path)


def test_an_image_is_no_sound(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    with pytest.raises(MediaError, match=r"a.png: holds no audio"):
        load_media(tmp_path / "a.png", video=False)
    with pytest.raises(MediaError, match=r"a.png: holds no audio, which is required"):
        load_media(tmp_path / "a.png", require=("audio",))


@pytest.mark.parametrize("name", ["shot%d.png", "my%20dog.png", "50%.png", "a:b.png", "shot%03d.jpg"])
def test_one_path_is_one_image(tmp_path: Path, name: str) -> None:
    for index in range(3):
        for other in (f"shot{index}.png", f"shot{index:03d}.jpg"):
            Image.new("RGB", (8, 8), (250, 250, 250)).save(tmp_path / other)
    Image.new("RGB", (8, 8), (10, 10, 10)).save(tmp_path / name)
    media = load_media(tmp_path / name)
    assert media.video.spans.tolist() == [[[-math.inf, math.inf]]]
    assert levels_of(media.video.pixels[0]) == pytest.approx([10], abs=2)


def box(kind: bytes, *parts: bytes) -> bytes:
    data = b"".join(parts)
    return struct.pack(">I", len(data) + 8) + kind + data


def avif_grid(tiles: list[Path], side: int) -> bytes:
    """An AVIF whose frame is composed of square tiles in one row, as cameras write large ones."""
    payloads, configuration = [], b""
    for path in tiles:
        data = path.read_bytes()
        at = data.index(b"mdat")
        size = struct.unpack(">I", data[at - 4 : at])[0]
        payloads.append(data[at + 4 : at - 4 + size])
        at = data.index(b"av1C")
        configuration = data[at - 4 : at - 4 + struct.unpack(">I", data[at - 4 : at])[0]]
    count = len(tiles)
    grid = struct.pack(">BBBBHH", 0, 0, 0, count - 1, side * count, side)
    file_type = box(b"ftyp", b"avif", bytes(4), b"avifmif1miaf")
    handler = box(b"hdlr", bytes(8), b"pict", bytes(13))

    def meta(start: int) -> bytes:
        places, at = [], start
        for item, payload in enumerate([grid, *payloads], 1):
            places.append(struct.pack(">HHHII", item, 0, 1, at, len(payload)))
            at += len(payload)
        kinds = [b"grid"] + [b"av01"] * count
        entries = [
            box(b"infe", struct.pack(">IHH", 2 << 24 | (item > 1), item, 0), kind, b"\0")
            for item, kind in enumerate(kinds, 1)
        ]
        of_tile = bytes([3, 2, 0x80 | 3, 4])
        links = [struct.pack(">HB", 1, 2) + bytes([1, 4])]
        links += [struct.pack(">H", item) + of_tile for item in range(2, count + 2)]
        return box(
            b"meta",
            bytes(4),
            handler,
            box(b"pitm", bytes(4), struct.pack(">H", 1)),
            box(b"iloc", bytes(4), b"\x44\0", struct.pack(">H", count + 1), *places),
            box(b"iinf", bytes(4), struct.pack(">H", count + 1), *entries),
            box(
                b"iref",
                bytes(4),
                box(b"dimg", struct.pack(f">HH{count}H", 1, count, *range(2, count + 2))),
            ),
            box(
                b"iprp",
                box(
                    b"ipco",
                    box(b"ispe", bytes(4), struct.pack(">II", side * count, side)),
                    box(b"ispe", bytes(4), struct.pack(">II", side, side)),
                    configuration,
                    box(b"pixi", bytes(4), b"\x03\x08\x08\x08"),
                ),
                box(b"ipma", bytes(4), struct.pack(">I", count + 1), *links),
            ),
        )

    start = len(file_type) + len(meta(0)) + 8
    return file_type + meta(start) + box(b"mdat", grid, *payloads)


def test_a_still_in_tiles_is_the_whole_picture(tmp_path: Path) -> None:
    tiles = []
    for index, level in enumerate((20, 120, 220)):
        tiles.append(tmp_path / f"{index}.avif")
        Image.new("RGB", (64, 64), (level, level, level)).save(tiles[-1])
    (tmp_path / "grid.avif").write_bytes(avif_grid(tiles, 64))
    found = load_media(tmp_path / "grid.avif").video.pixels[0, 0].float()
    assert found.shape == (3, 64, 192)
    assert [found[..., at : at + 64].mean().item() for at in (0, 64, 128)] == pytest.approx([20, 120, 220], abs=3)


def test_tiles_that_nothing_here_puts_together_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from avfusion.media import _load

    tiles = []
    for index in range(2):
        tiles.append(tmp_path / f"{index}.avif")
        Image.new("RGB", (64, 64)).save(tiles[-1])
    (tmp_path / "grid.avif").write_bytes(avif_grid(tiles, 64))
    monkeypatch.setattr(_load, "open_image", lambda file, limits: None)  # as for HEIC without an opener
    with pytest.raises(MediaError, match=r"grid.avif: .*tiles.*pillow-heif"):
        load_media(tmp_path / "grid.avif")


def test_an_image_that_ffmpeg_reads_is_held_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from avfusion.media import _load

    monkeypatch.setattr(_load, "open_image", lambda file, limits: None)  # as for HEIC, DPX, OpenEXR
    for suffix in ("avif", "png", "jpeg", "gif", "webp", "tiff", "bmp"):
        picture(width=64, height=64).save(tmp_path / f"a.{suffix}")
        assert load_media(tmp_path / f"a.{suffix}").video.spans.tolist() == [[[-math.inf, math.inf]]]


def test_jpeg_after_jpeg_is_video(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.mjpeg",
        pixels=grey([10, 110, 210]),
        times=[0.0, 0.04, 0.08],
        video_codec="mjpeg",
        pixel_format="yuvj420p",
    )
    assert levels_of(load_media(path, frame_rate=None).video.pixels[0]) == pytest.approx([10, 110, 210], abs=3)
