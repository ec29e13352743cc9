"""Audio of any kind comes out mono, at the rate asked for, each sample at its time."""

import math
from fractions import Fraction
from pathlib import Path

import av
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from avfusion import MediaError, Waveform
from avfusion.media import MediaLimits, load_media
from avfusion.media._audio import AudioCollector
from tests.media.files import grey, sound_frame, tone, write

drawn = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
KINDS = [  # suffix, codec, rate, whether frames go with it
    ("mp4", "aac", 44100, True),
    ("m4a", "aac", 16000, False),
    ("mkv", "libopus", 48000, True),
    ("webm", "libopus", 48000, False),
    ("ogg", "libopus", 48000, False),
    ("mp3", "libmp3lame", 44100, False),
    ("flac", "flac", 48000, False),
    ("wav", "pcm_s16le", 8000, False),
    ("wav", "pcm_u8", 22050, False),
    ("wav", "pcm_s24le", 96000, False),
    ("wav", "pcm_f32le", 44100, False),
    ("avi", "pcm_s16le", 44100, True),
]


def strength(samples: Tensor, frequency: float, rate: int = 16000) -> float:
    """Amplitude of a sine of this frequency in ``(sample,)``."""
    turns = torch.arange(samples.shape[0], dtype=torch.float64) * (2 * math.pi * frequency / rate)
    real, imaginary = (samples.double() * turns.cos()).mean(), (samples.double() * turns.sin()).mean()
    return 2 * math.hypot(real, imaginary)


def onset(waveform: Waveform) -> float:
    first = int((waveform.samples[0].abs() > 0.1).nonzero()[0])
    return float(waveform.start[0]) + first / waveform.sample_rate


@pytest.mark.parametrize(("suffix", "codec", "rate", "pictures"), KINDS)
def test_a_tone_is_heard_when_and_as_it_was_written(
    tmp_path: Path, suffix: str, codec: str, rate: int, pictures: bool
) -> None:
    path = write(
        tmp_path / f"clip.{suffix}",
        samples=tone(1000, 1.5, rate, onset=0.7)[None],
        rate=rate,
        audio_codec=codec,
        pixels=grey([9, 99, 200]) if pictures else None,
        times=(0.0, 0.5, 1.0),
    )
    media = load_media(path)
    wave = media.waveform
    assert (wave.samples.dtype, wave.sample_rate, float(wave.start)) == (torch.float32, 16000, 0.0)
    assert wave.durations.item() == pytest.approx(1.5, abs=1e-3)
    assert onset(wave) == pytest.approx(0.7, abs=1.5e-3)
    assert strength(wave.samples[0, 12000:23000], 1000) == pytest.approx(0.5, rel=0.1)
    assert (media.video is not None) == pictures


def test_sound_that_begins_late_keeps_its_start(tmp_path: Path) -> None:
    for suffix in ("mkv", "mp4"):
        path = write(
            tmp_path / f"clip.{suffix}",
            samples=tone(1000, 1.0, 48000, onset=0.25)[None],
            sound_at=((0.5, 0),),
            pixels=grey([9, 99, 200]),
            times=(0.0, 0.5, 1.0),
        )
        media = load_media(path)
        assert float(media.waveform.start) == pytest.approx(0.5, abs=0.025)  # AAC begins with a little silence
        assert onset(media.waveform) == pytest.approx(0.75, abs=1.5e-3)
        assert media.video.spans[0, 0, 0] == 0


def test_a_file_that_does_not_begin_at_zero_begins_at_zero(tmp_path: Path) -> None:
    path = write(
        tmp_path / "clip.ts",
        samples=tone(1000, 1.0, 48000, onset=0.5)[None],
        sound_at=((100.0, 0),),
        pixels=grey([9, 99, 200]),
        times=(100.0, 100.5, 101.0),
    )
    media = load_media(path)
    first = media.video.spans[0, 0, 0].item()
    assert first == 0.0
    # The offset of audio to frame is exact; MPEG-TS does not say how much of the audio is the encoder's delay.
    assert onset(media.waveform) == pytest.approx(0.5 + 1024 / 48000, abs=2e-3)


@drawn
@given(
    rate=st.sampled_from([8000, 16000, 22050, 44100, 48000]),
    sample_rate=st.sampled_from([8000, 16000, 24000, 44100]),
    count=st.integers(400, 20000),
)
def test_resampling_keeps_length_and_shape(tmp_path: Path, rate: int, sample_rate: int, count: int) -> None:
    written = tone(300, count / rate, rate)
    path = write(tmp_path / "clip.wav", samples=written[None], rate=rate, audio_codec="pcm_f32le")
    wave = load_media(path, sample_rate=sample_rate).waveform
    assert abs(wave.samples.shape[1] - count * sample_rate / rate) <= 1
    expected = tone(300, wave.samples.shape[1] / sample_rate, sample_rate)
    inside = slice(100, max(100, wave.samples.shape[1] - 100))
    assert torch.allclose(wave.samples[0, inside], expected[inside], atol=5e-3)


@drawn
@given(start=st.floats(0.0, 1.5), length=st.floats(0.01, 1.0), rate=st.sampled_from([16000, 44100]))
def test_a_cut_holds_what_is_heard_between_its_ends(tmp_path: Path, start: float, length: float, rate: int) -> None:
    # A sweep, so that every instant sounds different.
    times = torch.arange(2 * rate, dtype=torch.float64) / rate
    path = write(
        tmp_path / "clip.wav",
        samples=(0.5 * torch.sin(2 * math.pi * (300 + 200 * times) * times)).float()[None],
        rate=rate,
        audio_codec="pcm_f32le",
    )
    end = min(start + length, 2.0)
    wave = load_media(path, start=start, end=end).waveform
    assert 0 <= float(wave.start) <= 1 / 16000
    assert abs(wave.samples.shape[1] - (end - start) * 16000) <= 1.01
    heard = start + float(wave.start) + torch.arange(wave.samples.shape[1], dtype=torch.float64) / 16000
    expected = 0.5 * torch.sin(2 * math.pi * (300 + 200 * heard) * heard)
    inside = (heard > 0.01) & (heard < 1.99)
    assert torch.allclose(wave.samples[0].double()[inside], expected[inside], atol=5e-3)


def test_mixing_down_keeps_every_channel_and_the_scale(tmp_path: Path) -> None:
    left, right = tone(500, 1.0, 16000), tone(1500, 1.0, 16000)
    path = write(
        tmp_path / "two.wav",
        samples=torch.stack([left, right]),
        rate=16000,
        layout="stereo",
        audio_codec="pcm_f32le",
    )
    samples = load_media(path).waveform.samples[0]
    assert strength(samples, 500) == pytest.approx(0.25, rel=0.01)
    assert strength(samples, 1500) == pytest.approx(0.25, rel=0.01)
    loud = tone(500, 1.0, 16000, amplitude=0.9)
    path = write(
        tmp_path / "same.wav",
        samples=torch.stack([loud, loud]),
        rate=16000,
        layout="stereo",
        audio_codec="pcm_f32le",
    )
    assert torch.allclose(load_media(path).waveform.samples[0], loud, atol=1e-4)


def test_surround_sound_is_mixed_down(tmp_path: Path) -> None:
    frequencies = [300, 600, 900, 1500, 2100]  # the fourth channel of 5.1 is for bass alone
    channels = [tone(frequency, 1.0, 48000, amplitude=0.9) for frequency in frequencies]
    channels.insert(3, torch.zeros(48000))
    path = write(tmp_path / "six.wav", samples=torch.stack(channels), layout="5.1", audio_codec="pcm_f32le")
    samples = load_media(path).waveform.samples[0]
    assert samples.abs().max() <= 1
    assert all(strength(samples, frequency) > 0.05 for frequency in frequencies)


def test_a_gap_becomes_silence(tmp_path: Path) -> None:
    path = write(
        tmp_path / "gap.mkv",
        samples=tone(1000, 1.0, 48000)[None],
        audio_codec="pcm_s16le",
        sound_at=((0.0, 0), (1.5, 24000)),
    )
    wave = load_media(path).waveform
    assert wave.durations.item() == pytest.approx(2.0, abs=2e-3)
    assert strength(wave.samples[0, :7900], 1000) == pytest.approx(0.5, rel=0.01)
    assert wave.samples[0, 8100:23900].abs().max() == 0
    assert strength(wave.samples[0, 24100:], 1000) == pytest.approx(0.5, rel=0.01)


def test_one_stream_may_outlast_the_other(tmp_path: Path) -> None:
    short = write(tmp_path / "a.mp4", samples=tone(440, 0.5, 48000)[None], pixels=grey([9] * 4), times=(0, 0.5, 1, 1.5))
    long = write(tmp_path / "b.mp4", samples=tone(440, 3.0, 48000)[None], pixels=grey([9] * 2), times=(0, 0.5))
    assert load_media(short).waveform.durations.item() == pytest.approx(0.5, abs=1e-3)
    assert load_media(short).duration > 1.5
    assert load_media(long).duration == pytest.approx(3.0, abs=1e-3)
    assert load_media(long).video.spans[0, -1, 1] <= 1.0
    assert load_media(short, start=1.0).waveform is None


def test_cover_art_is_not_video(tmp_path: Path) -> None:
    cover = write(
        tmp_path / "p.jpg", pixels=grey([90]), times=[0.0], video_codec="mjpeg", pixel_format="yuvj420p"
    ).read_bytes()
    song = write(tmp_path / "a.mp3", samples=tone(440, 1.0, 44100)[None], rate=44100, audio_codec="libmp3lame")
    picture = b"\0image/jpeg\0\x03\0" + cover
    frame = b"APIC" + len(picture).to_bytes(4, "big") + b"\0\0" + picture
    size = len(frame)
    head = b"ID3\x03\0\0" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0))
    data = song.read_bytes()
    old = 10 + sum(byte << shift for byte, shift in zip(data[6:10], (21, 14, 7, 0), strict=True))
    song.write_bytes(head + frame + data[old:])
    with av.open(str(song)) as container:
        assert [stream.type for stream in container.streams] == ["audio", "video"]
    with pytest.raises(MediaError, match="holds no video"):
        load_media(song, audio=False)
    media = load_media(song)
    assert media.video is None
    assert media.waveform.durations.item() == pytest.approx(1.0, abs=2e-3)


@settings(parent=drawn, max_examples=200)
@given(
    count=st.integers(1, 80),
    rates=st.tuples(st.sampled_from([8000, 11025, 44100, 48000, 192000]), st.sampled_from([8000, 16000, 44100])),
    at=st.sampled_from([0.0, 1.0]),
)
def test_sound_shorter_than_a_filter_is_heard(tmp_path: Path, count: int, rates: tuple[int, int], at: float) -> None:
    rate, sample_rate = rates
    samples = torch.full((1, count), 0.5)
    sound = AudioCollector(zero=Fraction(0), begin=at, end=math.inf, sample_rate=sample_rate, limits=MediaLimits())
    frame = sound_frame(samples, 0, rate, "mono")
    frame.pts = round(at * rate)
    sound.add(frame)
    waveform = sound.finish()
    expected = count * sample_rate / rate
    if waveform is None:
        assert expected < 1
        return
    heard = waveform.samples[0]
    assert abs(heard.shape[0] - expected) < 1 + 1e-6
    assert waveform.start == 0
    assert heard.abs().max() > 0.2 * min(1, expected / 4)


@settings(parent=drawn, max_examples=200)
@given(
    begin=st.floats(0.0, 0.9),
    lengths=st.lists(st.integers(200, 2000), min_size=8, max_size=12),
    rate=st.sampled_from([8000, 16000]),
)
def test_sound_without_times_is_cut_where_it_is(begin: float, lengths: list[int], rate: int) -> None:
    samples = tone(300, sum(lengths) / rate, rate) * torch.linspace(0.1, 1, sum(lengths))

    def read(since: float) -> Waveform | None:
        sound = AudioCollector(zero=Fraction(0), begin=since, end=math.inf, sample_rate=16000, limits=MediaLimits())
        first = 0
        for length in lengths:
            frame = sound_frame(samples[None, first : first + length], 0, rate, "mono")
            frame.pts, first = None, first + length
            sound.add(frame)
        return sound.finish()

    whole, cut = read(0.0), read(begin)
    assert whole is not None
    place = math.ceil(begin * 16000 - 1e-6)
    rest = whole.samples[0, place:]
    assert rest.shape[0] == (0 if cut is None else cut.samples.shape[1])
    if cut is not None:
        assert torch.equal(cut.samples[0], rest)
