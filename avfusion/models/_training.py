"""What transformers' Trainer and accelerate ask of a model."""

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from avfusion.errors import InvalidValueError
from avfusion.models._given import unchanged
from avfusion.models._storage import StoredModel
from avfusion.models._wrappers import base_model, unwrap


class TrainedModel(StoredModel):
    """An assembly that Trainer trains, evaluates, saves and resumes as a model of transformers."""

    frozen_in_state_dict: bool = True
    """Whether a state dict, and so a checkpoint of Trainer, holds what is frozen and as it was given."""

    accepts_loss_kwargs = True
    main_input_name = "input_ids"
    _keys_to_ignore_on_save: list[str] | None = None

    def _settle(self) -> None:
        super()._settle()
        self.register_state_dict_post_hook(_tidy)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_expect_tidy)  # type: ignore[no-untyped-call]

    def frozen_names(self) -> set[str]:
        """Names of the parameters of language model and encoders that are frozen and as they were given."""
        same = {
            id(tensor)
            for name, part in self.given_parts.items()
            for tensor in unchanged(part, self.given_checksums[name]).values()
        }
        return {name for name, value in self.named_parameters(remove_duplicate=False) if id(value) in same}

    @property
    def config(self) -> Any:
        """The language model's configuration, with what Trainer needs to know of this model's outputs."""
        return _Config(base_model(self.language_model).config)

    @property
    def generation_config(self) -> Any:
        """The language model's."""
        return unwrap(self.language_model).generation_config

    @property
    def loss_type(self) -> Any:
        """The language model's loss type, which Trainer uses to count labels."""
        return getattr(base_model(self.language_model), "loss_type", None)

    @property
    def is_activation_checkpointing(self) -> bool:
        """Whether any part recomputes its activations."""
        return any(getattr(module, "gradient_checkpointing", False) for module in self.modules())

    def get_input_embeddings(self) -> Any:
        """The language model's table of input embeddings."""
        return unwrap(self.language_model).get_input_embeddings()

    def get_output_embeddings(self) -> Any:
        """The language model's head."""
        return unwrap(self.language_model).get_output_embeddings()


class _Config:
    """Passes everything on to a configuration, but for what an assembly answers otherwise."""

    def __init__(self, config: Any) -> None:
        object.__setattr__(self, "_config", config)

    @property
    def keys_to_ignore_at_inference(self) -> list[str]:
        """What evaluation does not collect: predictions are the logits, and what else was asked for."""
        return ["cache", "past_key_values", "language_model_loss", "diversity_loss", "embeddings"]

    @property
    def problem_type(self) -> Any:
        """Asked for by Trainer where labels are to be smoothed, which it would do without shifting them."""
        raise InvalidValueError(
            "label_smoothing_factor: must be 0, Trainer smooths the labels of its own causal language models alone; "
            "give it a compute_loss_func that does"
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "_config"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._config, name, value)


def _tidy(module: Any, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    """Leaves each tensor in a state dict once and in one piece, as safetensors needs it."""
    left_out = set() if module.frozen_in_state_dict else module.frozen_names()
    seen: dict[int, tuple[Any, ...]] = {}
    for key in [key for key in state if key.startswith(prefix)]:
        tensor = state[key]
        if key.removeprefix(prefix) in left_out:
            del state[key]
        elif isinstance(tensor, Tensor) and not isinstance(tensor, nn.Parameter) and _has_storage(tensor):
            view = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
            first = seen.setdefault(tensor.untyped_storage().data_ptr(), view)
            if first is not view and first == view:
                del state[key]  # a tied weight's second name
            elif first is not view or not tensor.is_contiguous():
                state[key] = tensor.clone(memory_format=torch.contiguous_format)


def _has_storage(tensor: Tensor) -> bool:
    return type(tensor) is Tensor and tensor.layout == torch.strided and not tensor.is_meta and tensor.numel() > 0


def _expect_tidy(module: Any, incompatible: Any) -> None:
    """A state dict that lacks a tied weight's second name, or what is frozen, lacks nothing."""
    names: dict[int, list[str]] = {}
    tensors = (module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False))
    for name, value in itertools.chain(*tensors):
        names.setdefault(id(value), []).append(name)
    optional = set() if module.frozen_in_state_dict else module.frozen_names()
    missing = set(incompatible.missing_keys)
    for aliases in names.values():
        for prefix in {key.removesuffix(name) for key in missing for name in aliases if key.endswith(name)}:
            lacking = [name for name in aliases if prefix + name in missing]
            if len(lacking) < len(aliases) or set(aliases) <= optional:
                for name in lacking:
                    incompatible.missing_keys.remove(prefix + name)
