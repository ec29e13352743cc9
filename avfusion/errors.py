"""What avfusion raises on bad input: always a ``ValueError`` or a ``TypeError``, always one message."""


class InvalidValueError(ValueError):
    """A parameter has a value, shape or width that the called part does not take.

    Example:
        >>> from avfusion import DiversityLoss
        >>> DiversityLoss(weight=-1.0)
        Traceback (most recent call last):
        ...
        avfusion.errors.InvalidValueError: weight: must be at least 0, found -1.0
    """


class InvalidTypeError(TypeError):
    """A parameter has a type or dtype that the called part does not take.

    Example:
        >>> import torch
        >>> from avfusion import DiversityLoss
        >>> DiversityLoss()(torch.ones(1, 2, 4), torch.ones(1))
        Traceback (most recent call last):
        ...
        avfusion.errors.InvalidTypeError: window_mask: must be boolean (True = real), found torch.float32
    """


class AlignmentError(InvalidValueError):
    """Real tokens that no frame can hold; the message says which.

    Example:
        >>> import torch
        >>> from avfusion import FrameSynchroniser
        >>> synchronise = FrameSynchroniser(visual_dim=None, stream_dims={"audio": 8}, slots=24)
        >>> synchronise(audio=torch.zeros(1, 100, 8))  # 25 tokens a frame
        Traceback (most recent call last):
        ...
        avfusion.errors.AlignmentError: audio: ...
    """


class PlaceholderError(InvalidValueError):
    """Placeholder tokens in the text and embeddings to put there differ in number.

    Example:
        >>> from avfusion import PlaceholderError
        >>> issubclass(PlaceholderError, ValueError)  # see avfusion.models.merge_embeddings
        True
    """


class CheckpointError(InvalidValueError):
    """A saved file does not fit the module it is loaded into; the message names what differs.

    Example:
        >>> from avfusion import DiversityLoss
        >>> DiversityLoss.from_config({"wieght": 0.01})
        Traceback (most recent call last):
        ...
        avfusion.errors.CheckpointError: DiversityLoss: unknown arguments ['wieght'], known are ['reduction', 'weight']
    """


class MediaError(InvalidValueError):
    """A media file that cannot be read; the message names the file and the reason.

    Example:
        >>> from avfusion.media import load_media
        >>> load_media("missing.mp4")
        Traceback (most recent call last):
        ...
        avfusion.errors.MediaError: missing.mp4: does not exist
    """


class ConformanceError(InvalidValueError):
    """A part breaks what its Protocol asks; the message names the property, what was found, and a way to mend it.

    Example:
        >>> from avfusion import ConformanceError
        >>> from avfusion.testing import check_visual_encoder
        >>> try:
        ...     check_visual_encoder(lambda video: video)
        ... except ConformanceError as error:
        ...     print(error)
        function breaks "protocol": output_dim must be a whole number of at least 1, found None; set self.output_dim
        in __init__
    """


__all__ = [
    "AlignmentError",
    "CheckpointError",
    "ConformanceError",
    "InvalidTypeError",
    "InvalidValueError",
    "MediaError",
    "PlaceholderError",
]
