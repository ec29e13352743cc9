"""What transformers' Trainer and accelerate ask of a model."""

from typing import Any, Self

from avfusion.encoders._checkpointing import disable_checkpointing, enable_checkpointing
from avfusion.errors import InvalidValueError
from avfusion.models._given import unchanged
from avfusion.models._state_dict import expect_tidy, tidy
from avfusion.models._storage import StoredModel
from avfusion.models._wrappers import base_model, unwrap


class TrainedModel(StoredModel):
    """An assembly that Trainer trains, evaluates, saves and resumes as a model of transformers."""

    frozen_in_state_dict: bool = True
    """Whether a state dict, and so a checkpoint of Trainer, holds what is frozen and as it was given."""

    labelled_logits_only: bool = False
    """Whether, in training mode with labels, logits are computed only at positions with a label in some row.

    The loss and its gradients are the same; ``logits`` are ``(row, position, vocabulary)`` of those positions. It saves
    time and memory of the head. A language model without ``logits_to_keep``, or with a loss function that takes no
    ``shift_labels``, gives all logits.
    """

    accepts_loss_kwargs = True
    main_input_name = "input_ids"
    _keys_to_ignore_on_save: list[str] | None = None

    def _settle(self) -> None:
        super()._settle()
        self.register_state_dict_post_hook(tidy)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(expect_tidy)  # type: ignore[no-untyped-call]

    def frozen_names(self) -> set[str]:
        """Names of the parameters of language model and encoders that are frozen and as they were given."""
        same = {
            id(tensor)
            for name, part in self.given_parts.items()
            for tensor in unchanged(part, self.given_checksums[name]).values()
        }
        return {name for name, value in self.named_parameters(remove_duplicate=False) if id(value) in same}

    def train(self, mode: bool = True) -> Self:
        """Sets the mode as ``nn.Module`` does; connector and encoders of which nothing is trained stay in eval mode.

        Freeze first: the mode of a part that is frozen later changes with the next call.
        """
        super().train(mode)
        for part in (self.connector, *self.encoders.values()):
            parameters = list(part.parameters())
            if parameters and not any(value.requires_grad for value in parameters):
                part.eval()
        return self

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

    def add_model_tags(self, tags: list[str] | str) -> None:
        """Adds tags to the language model's card, as trl's trainers do."""
        base_model(self.language_model).add_model_tags(tags)

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

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Recomputes the language model's and the connector's activations in the backward pass.

        Args:
            activation_checkpointing_kwargs: of ``torch.utils.checkpoint``, for the language model.
            **kwargs: what else this transformers takes: ``every_n_layers``, ``offload``, ….
        """
        enable_checkpointing(unwrap(self.language_model), activation_checkpointing_kwargs, **kwargs)
        self._checkpoint_connector(True)

    def activation_checkpointing_disable(self) -> None:
        """Keeps activations again."""
        disable_checkpointing(unwrap(self.language_model))
        self._checkpoint_connector(False)

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """:meth:`activation_checkpointing_enable`, by its older name."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, **kwargs)

    def gradient_checkpointing_disable(self) -> None:
        """:meth:`activation_checkpointing_disable`, by its older name."""
        self.activation_checkpointing_disable()

    def _checkpoint_connector(self, enabled: bool) -> None:
        for module in self.connector.modules():
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = enabled

    def set_attn_implementation(self, attn_implementation: Any) -> None:
        """Changes the attention backend of connector and language model; the connector refuses one it does not have."""
        for module in self.connector.modules():
            if hasattr(module, "set_attn_implementation"):
                module.set_attn_implementation(attn_implementation)
        unwrap(self.language_model).set_attn_implementation(attn_implementation)


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
