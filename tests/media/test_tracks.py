"""Which audio is read, of which channels, and on which clock."""

import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avfusion import InvalidTypeError, InvalidValueError, MediaError
from avfusion.media import load_media, open_live
from tests.media.files import grey, picture_frame, sound_frame, tone
from tests.media.live.helpers import assert_same
from tests.media.test_sizes import riff

drawn = settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def interleaved(channels: list[torch.Tensor]) -> bytes:
    return (torch.stack(channels, 1) * 32000).short().numpy().tobytes()


@drawn
@given(count=st.integers(1, 64), loud=st.integers(0, 63), rate=st.sampled_from([8000, 16000, 44100]))
def test_any_number_of_channels_is_mixed_down(tmp_path: Path, count: int, loud: int, rate: int) -> None:
    channels = [torch.zeros(1000)] * count
    channels[loud % count] = tone(300, 1000 / rate, rate, amplitude=1.0)
    path = tmp_path / "sound.wav"
    pcm = interleaved(channels)
    path.write_bytes(riff(pcm, len(pcm), len(pcm) + 36, rate, 2, count))
    media = load_media(path)
    samples = media.waveform.samples
    assert samples.abs().max() <= 1
    # FFmpeg knows the place of each of up to eight channels, and leaves out the one for bass.
    assert samples.abs().max() > (0.5 / count if count > 8 else -1)
    with open_live(path, realtime=False) as live:
        assert_same([*live], media)


@pytest.mark.parametrize("count", [9, 16, 32, 64])
def test_unknown_channels_count_alike(tmp_path: Path, count: int) -> None:
    channels = [tone(300, 0.5, 16000, amplitude=0.9)] * count
    pcm = interleaved(channels)
    (tmp_path / "a.wav").write_bytes(riff(pcm, len(pcm), len(pcm) + 36, 16000, 2, count))
    found = load_media(tmp_path / "a.wav").waveform.samples[0]
    assert torch.allclose(found, channels[0] * 32000 / 32768, atol=1e-3)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_ambisonic_sound_is_what_comes_from_everywhere(tmp_path: Path, order: int) -> None:
    count = (order + 1) ** 2
    samples = torch.stack([tone(300, 0.5, 48000)] + [tone(900, 0.5, 48000)] * (count - 1))
    path = tmp_path / "a.mka"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libopus", rate=48000, options={"mapping_family": "2"})
        stream.layout = f"ambisonic {order}"
        frame = av.AudioFrame(format="flt", layout=f"ambisonic {order}", samples=samples.shape[1])
        frame.planes[0].update(bytes(samples.T.contiguous().flatten().view(torch.uint8).tolist()))
        frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found = load_media(path, sample_rate=48000).waveform.samples[0]
    assert (found[1000:20000] - samples[0, 1000:20000]).abs().mean() < 0.05


def test_channels_in_an_order_of_their_own_are_mixed_down(tmp_path: Path) -> None:
    # In another process: PyAV frees the names of such an order twice.
    labels = (3, 4, 1, 2)  # centre, bass, left, right
    pcm = interleaved([tone(300, 0.5, 16000)] * 4)
    form = struct.pack(">4sqd4sIIIII", b"desc", 32, 16000.0, b"lpcm", 2, 8, 1, 4, 16)
    order = struct.pack(">III", 0, 0, 4) + b"".join(struct.pack(">II3f", label, 0, 0.0, 0.0, 0.0) for label in labels)
    channels = struct.pack(">4sq", b"chan", len(order)) + order
    (tmp_path / "a.caf").write_bytes(
        b"caff\0\1\0\0" + form + channels + struct.pack(">4sqI", b"data", len(pcm) + 4, 0) + pcm
    )
    code = (
        "import sys; from avfusion.media import load_media\n"
        "for _ in range(3): print(load_media(sys.argv[1]).waveform.samples.abs().max().item())"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "a.caf")]
    done = subprocess.run(arguments, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(float(line) == pytest.approx(0.49, abs=0.02) for line in done.stdout.split())


def two_tracks(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mpeg4", rate=10)
        picture.height, picture.width, picture.pix_fmt = 24, 32, "yuv420p"
        tracks = [container.add_stream("pcm_s16le", rate=16000) for _ in range(2)]
        for track in tracks:
            track.layout = "mono"
        for index, image in enumerate(grey([10 * index for index in range(10)])):
            container.mux(picture.encode(picture_frame(image, 100 * index)))
        container.mux(picture.encode(None))
        for track, samples in zip(tracks, (torch.zeros(16000), tone(300, 1.0, 16000)), strict=True):
            container.mux(track.encode(sound_frame(samples[None], 0, 16000, "mono")))
            container.mux(track.encode(None))
    return path


def test_a_track_is_chosen(tmp_path: Path) -> None:
    path = two_tracks(tmp_path / "a.mkv")
    assert load_media(path).waveform.samples.abs().max() == 0
    assert load_media(path, audio_track=0).waveform.samples.abs().max() == 0
    second = load_media(path, audio_track=1)
    assert second.waveform.samples.abs().max() > 0.4
    assert torch.equal(load_media(path, audio_track=1, start=0.5).waveform.samples, second.waveform.samples[:, 8000:])
    with open_live(path, realtime=False, audio_track=1) as live:
        assert_same([*live], second)
    for read in (load_media, open_live):
        with pytest.raises(MediaError, match=r"a.mkv: holds no audio track 2: it has 2"):
            read(path, audio_track=2)
        with pytest.raises(InvalidValueError, match=r"audio_track: .*found -1"):
            read(path, audio_track=-1)
        with pytest.raises(InvalidTypeError, match=r"audio_track: .*found bool"):
            read(path, audio_track=True)


def test_a_track_that_cannot_be_decoded_is_passed_over(tmp_path: Path) -> None:
    path = two_tracks(tmp_path / "a.mkv")
    data = path.read_bytes()
    at = data.index(b"A_PCM/INT/LIT")
    path.write_bytes(data[:at] + b"A_XYZ/INT/LIT" + data[at + 13 :])
    assert load_media(path).waveform.samples.abs().max() > 0.4
    with pytest.raises(MediaError, match="of a kind that FFmpeg cannot decode"):
        load_media(path, audio_track=0)


@pytest.mark.parametrize("start", [0.0, 0.5])
def test_subtitles_do_not_move_the_clock(tmp_path: Path, start: float) -> None:
    (tmp_path / "a.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nhello\n")
    found = []
    for subtitled in (False, True):
        path = tmp_path / f"{subtitled}.mkv"
        with av.open(str(path), "w") as container, av.open(str(tmp_path / "a.srt")) as lines:
            picture = container.add_stream("mpeg4", rate=25)
            picture.height, picture.width, picture.pix_fmt = 24, 32, "yuv420p"
            if subtitled:
                text = container.add_stream_from_template(lines.streams.subtitles[0])
                for packet in lines.demux():
                    if packet.size:
                        packet.stream = text
                        container.mux(packet)
            for index, image in enumerate(grey([10 * index for index in range(25)])):
                frame = picture_frame(image, 0)
                frame.pts, frame.time_base = 2500 + index, Fraction(1, 25)
                container.mux(picture.encode(frame))
            container.mux(picture.encode(None))
        found.append(load_media(path, start=start, frame_rate=None))
    assert torch.equal(found[0].video.spans, found[1].video.spans)
    assert torch.equal(found[0].video.pixels, found[1].video.pixels)
    assert found[0].video.spans[0, 0, 0] == 0
