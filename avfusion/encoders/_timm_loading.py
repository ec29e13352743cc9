"""Pretrained timm models without their head."""

from pathlib import Path
from typing import Any

from avfusion.encoders._loading import check_safe
from avfusion.errors import CheckpointError, InvalidValueError


def import_timm() -> Any:
    """The package, or an error that names the extra."""
    try:
        import timm
    except ImportError as error:
        raise ImportError("TimmVisualEncoder needs timm: pip install avfusion[hf]") from error
    return timm


def load_timm(
    name: str, image_size: tuple[int, int] | None, checkpoint_path: str | Path | None, options: dict[str, Any]
) -> Any:
    """A pretrained timm model without its head.

    The head is loaded and then dropped, because timm ignores missing weights for a model without a head.

    Raises:
        CheckpointError: weights that are missing or of other shapes.
        InvalidValueError: a ``checkpoint_path`` that is no safetensors file.
    """
    timm = import_timm()
    options = {"pretrained": True, **check_safe(options)}
    if checkpoint_path is not None:
        options |= _local_file(Path(checkpoint_path), name, options)
    try:
        model = timm.create_model(name, **options).eval()
    except RuntimeError as error:
        if "loading state_dict" not in str(error):
            raise
        said = " ".join(str(error).split())
        raise CheckpointError(f"{checkpoint_path or name}: must hold the weights of {name}: {said}") from error
    if hasattr(model, "reset_classifier"):
        model.reset_classifier(0)
    if image_size is not None and hasattr(model, "set_input_size"):
        model.set_input_size(img_size=image_size)
    return model


def _local_file(path: Path, name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Options with which ``create_model`` loads a file with any head."""
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors":
        raise InvalidValueError(
            f"checkpoint_path: must be a .safetensors file, found {path}; convert another by "
            "safetensors.torch.save_file(torch.load(path, weights_only=True), new_path)"
        )
    config = import_timm().get_pretrained_cfg(name)
    heads = getattr(config, "classifier", None) or ()
    heads = (heads,) if isinstance(heads, str) else heads
    try:
        with safe_open(path, "pt") as file:
            weights = {f"{head}.weight" for head in heads} & set(file.keys())
            classes = [file.get_slice(weight).get_shape()[0] for weight in weights]
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint_path: {path} cannot be read ({error})") from error
    number = options.get("num_classes", classes[0] if classes else 0)
    overlay = {**(options.get("pretrained_cfg_overlay") or {}), "file": str(path), "custom_load": False}
    return {"num_classes": number, "pretrained_cfg_overlay": {**overlay, "num_classes": number}}
