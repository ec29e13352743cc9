"""What avfusion raises on bad input: always a ``ValueError`` or a ``TypeError``, always one message."""


class InvalidValueError(ValueError):
    """A parameter has a value, shape or width that the called part does not take."""


class InvalidTypeError(TypeError):
    """A parameter has a type or dtype that the called part does not take."""


class AlignmentError(InvalidValueError):
    """Real tokens that no frame can hold; the message says which."""


class PlaceholderError(InvalidValueError):
    """Placeholder tokens in the text and embeddings to put there differ in number."""


class CheckpointError(InvalidValueError):
    """A saved file does not fit the module it is loaded into; the message names what differs."""


class MediaError(InvalidValueError):
    """A media file that cannot be read; the message names the file and the reason."""


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
