"""Whisper's log-mel spectrogram of audio of any length."""

from typing import NamedTuple

import torch
from torch import Tensor
from transformers import WhisperFeatureExtractor

from avfusion.encoders._audio import check_waveform
from avfusion.functional import cut_chunks, scatter_masked
from avfusion.types import Waveform


class LogMelChunks(NamedTuple):
    """Log-mel spectrograms of clips in chunks.

    Attributes:
        features: ``(batch, mel, frame)``, zero in padding chunks.
        mask: ``(batch, frame)`` bool: frames that begin within the audio.
        start: ``(batch,)`` seconds at which the clips begin.

    Example:
        >>> import torch
        >>> from transformers import WhisperFeatureExtractor
        >>> from avfusion import Waveform
        >>> from avfusion.encoders import log_mel_chunks
        >>> wave = Waveform.from_samples([torch.randn(40000)], sample_rate=16000, start=2.0)
        >>> log_mel_chunks(wave, WhisperFeatureExtractor())._fields
        ('features', 'mask', 'start')
    """

    features: Tensor
    mask: Tensor
    start: Tensor


def log_mel(samples: Tensor, extractor: WhisperFeatureExtractor) -> Tensor:
    """The features of ``extractor`` for ``samples`` ``(clip, sample)``, on their device: ``(clip, mel, frame)``.

    In float32, or in float64 for float64 samples:

    log10 of the mel power spectrum, clipped to 8 decades below the clip's maximum, then ``(x + 4) / 4``.

    Example:
        >>> import torch
        >>> from transformers import WhisperFeatureExtractor
        >>> from avfusion.encoders import log_mel
        >>> log_mel(torch.randn(2, 16000), WhisperFeatureExtractor()).shape
        torch.Size([2, 80, 100])
    """
    with torch.autocast(samples.device.type, enabled=False):  # half precision loses the quiet bands
        samples = samples.to(torch.promote_types(samples.dtype, torch.float32))
        if extractor.dither:
            samples = samples + extractor.dither * torch.randn_like(samples)
        window = torch.hann_window(extractor.n_fft, dtype=samples.dtype, device=samples.device)
        spectrum = torch.stft(samples, extractor.n_fft, extractor.hop_length, window=window, return_complex=True)
        filters = torch.as_tensor(extractor.mel_filters, dtype=samples.dtype, device=samples.device)
        levels = (filters.T @ spectrum[..., :-1].abs().square()).clamp(min=1e-10).log10()
        return (levels.maximum(levels.amax((1, 2), keepdim=True) - 8) + 4) / 4


def log_mel_chunks(
    waveform: Waveform, feature_extractor: WhisperFeatureExtractor, *, chunk_batch_size: int = 16
) -> LogMelChunks:
    """Whisper's input features for audio of any length, for a processor without the model.

    The audio is cut into chunks of the extractor's length (30 s), each of which is padded with silence.
    ``WhisperAudioEncoder.encode(*log_mel_chunks(waveform, extractor))`` equals the encoder's output for ``waveform``.

    Args:
        waveform: audio at the extractor's sample rate.
        feature_extractor: gives the mel filters and the length of a chunk.
        chunk_batch_size: chunks that are computed at once.

    Raises:
        InvalidTypeError: ``waveform`` is not a :class:`~avfusion.Waveform`.
        InvalidValueError: another sample rate, or padding before real samples.

    Example:
        >>> import torch
        >>> from transformers import WhisperFeatureExtractor
        >>> from avfusion import Waveform
        >>> from avfusion.encoders import log_mel_chunks
        >>> wave = Waveform.from_samples([torch.randn(40000), torch.randn(8000)], sample_rate=16000)
        >>> mel = log_mel_chunks(wave, WhisperFeatureExtractor())
        >>> mel.features.shape, mel.mask.sum(1).tolist()
        (torch.Size([2, 80, 3000]), [250, 50])
    """
    check_waveform(waveform, feature_extractor.sampling_rate)
    samples = waveform.samples.masked_fill(~waveform.mask, 0)
    chunks, real = cut_chunks(samples, waveform.lengths, feature_extractor.n_samples)
    chunks = chunks[real]
    if not len(chunks):
        features = chunks.new_zeros(len(samples), feature_extractor.feature_size, 0)
        return LogMelChunks(
            features, torch.zeros(len(samples), 0, dtype=torch.bool, device=samples.device), waveform.start
        )
    parts = [log_mel(part, feature_extractor).transpose(1, 2) for part in chunks.split(chunk_batch_size)]
    features = scatter_masked(torch.cat(parts), real).flatten(1, 2).transpose(1, 2)
    frames = -(-waveform.lengths // feature_extractor.hop_length)
    mask = torch.arange(features.shape[2], device=features.device) < frames[:, None]
    return LogMelChunks(features, mask, waveform.start)
