"""A FAVOR model as a session takes it: it watches and listens while sound and pictures come in."""

from typing import Any

import torch
from torch import nn

from avfusion import AudioVisualConnector, Frames, InvalidValueError, Video
from avfusion.encoders import BlockwiseAudioEncoder, WhisperAudioEncoder, preprocess_videos
from avfusion.models import AudioVisualLanguageModel, KeepNewest, LiveSession, conversation
from examples.favor.answering import Answerer
from examples.favor.connector import active_connector
from examples.favor.processing_favor import FavorProcessor

HEARD, BLOCK, LOOK_AHEAD = 10.0, 1.0, 0.5  # seconds that Whisper is given at once; of them new; heard ahead of those
MAX_WAIT = 3.0  # seconds of one stream without the other, until it goes on alone
_MARK = "(question)"  # stands for the question while the prompt is rendered


class Eye(nn.Module):
    """The vision tower, with InstructBLIP's Q-Former if the model has it: pictures to tokens, each by itself.

    A question that has not been asked yet cannot guide it: the Q-Former looks without an instruction.
    """

    def __init__(self, encoder: Any, image_processor: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.image_processor = image_processor
        self.output_dim: int = encoder.output_dim
        self.tokens_per_frame: int = encoder.tokens_per_frame

    def forward(self, video: Video) -> Frames:
        if bool(video.mask.any()):
            video = preprocess_videos([video], self.image_processor)
        else:  # nothing to prepare, and no frame to keep
            video = video._replace(pixels=torch.zeros(*video.mask.shape, 3, *self.encoder.image_size))
        frames: Frames = self.encoder(video)
        return frames


def live_model(model: Any, processor: FavorProcessor) -> AudioVisualLanguageModel:
    """The same parts, put together for a session; nothing is copied.

    Raises:
        InvalidValueError: a model that cannot stream: it does not fuse, or depends on later frames.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    connector = active_connector(base)
    if not isinstance(connector, AudioVisualConnector):
        raise InvalidValueError(f'model: must have fusion "synchronised" to be live, found {base.config.fusion!r}')
    connector.initial_state()  # refuses by name what cannot stream
    positions = base.config.audio_config.max_source_positions
    whisper = WhisperAudioEncoder(
        model=base.audio_encoder.model,
        feature_extractor=processor.feature_extractor,
        chunk_seconds=min(HEARD, positions / 50),
    )
    heard = {name: stream for name, stream in base.streams.items() if stream.kind != "pictures"}
    towers = {
        name: whisper if stream.kind == "speech" else getattr(base, stream.tower) for name, stream in heard.items()
    }
    ears = {name: _blockwise(tower, whisper.chunk_seconds) for name, tower in towers.items()}
    return AudioVisualLanguageModel(
        language_model=base.language_model,
        connector=connector,
        audio_encoders=ears,
        visual_encoder=Eye(base.visual_encoder, processor.image_processor),
        placeholder_token_id=base.config.media_token_id,
    ).eval()


def live_session(answerer: Answerer, *, remember: float = 120.0) -> LiveSession:
    """A session that remembers so many seconds."""
    processor = answerer.processor
    prompt = processor.apply_chat_template(conversation(_MARK, video="live"), tokenize=False)
    bos = processor.tokenizer.bos_token
    return LiveSession(
        live_model(answerer.model, processor),
        processor.tokenizer,
        prompt=prompt.replace(_MARK, "{question}"),
        retention=KeepNewest(seconds=remember),
        placeholder=processor.placeholder,
        add_special_tokens=not (bos and prompt.startswith(bos)),
        max_wait=MAX_WAIT,
    )


def media_options(processor: FavorProcessor) -> dict[str, Any]:
    """How a source is to be opened for the model."""
    return processor.media_options


def answer_options(answerer: Answerer) -> dict[str, Any]:
    """How answers are found: the answerer's decoding, without beams, which cannot be streamed."""
    return answerer.decoding._replace(num_beams=1).arguments()


def _blockwise(encoder: Any, most: float) -> BlockwiseAudioEncoder:
    block, ahead = min(BLOCK, most / 2), min(LOOK_AHEAD, most / 4)
    return BlockwiseAudioEncoder(encoder=encoder, block=block, left_context=most - block - ahead, look_ahead=ahead)
