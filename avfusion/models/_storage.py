"""What is trained, to a directory and back."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from avfusion.models._features import VISUAL
from avfusion.models._given import Checksums, as_given, checksums, follow_cast
from avfusion.models._loading import (
    load_connector,
    load_encoders,
    load_language_model,
    read_config,
    recorded_encoders,
    recorded_fingerprint,
    recorded_source,
)
from avfusion.models._parts import LANGUAGE_MODEL, PartSource, source_of
from avfusion.models._saving import save
from avfusion.models._wrappers import base_model
from avfusion.models.fingerprint import check_fingerprint, fingerprint
from avfusion.modules import DiversityLoss


class StoredModel(nn.Module):
    """What saves and loads :class:`~avfusion.models.AudioVisualLanguageModel`: whatever of it is trained."""

    language_model: Any
    connector: Any
    audio_encoders: nn.ModuleDict
    visual_encoder: nn.Module | None
    placeholder_token_id: int
    diversity_loss: DiversityLoss | None
    given_checksums: dict[str, Checksums | None]
    given_fingerprints: dict[str, dict[str, Any] | None]
    part_sources: dict[str, PartSource]
    placeholder: str | None

    def _settle(self) -> None:
        """Ends the construction: keeps in mind what was given."""
        self.given_checksums = {name: checksums(part) for name, part in self.given_parts.items()}
        self.given_fingerprints = {name: fingerprint(part) for name, part in self.given_parts.items()}
        source = source_of(base_model(self.language_model))
        self.part_sources = {} if source is None else {LANGUAGE_MODEL: source}
        self.placeholder = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """As of any module; what it casts is no other than what was given."""
        dtypes = {value.dtype for part in self.given_parts.values() for value in part.parameters()}
        if all(fn(torch.empty(0, dtype=dtype)).dtype == dtype for dtype in dtypes):
            return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        same = {name: list(as_given(part, self.given_checksums[name])) for name, part in self.given_parts.items()}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, part in self.given_parts.items():
            follow_cast(part, self.given_checksums[name], same[name])
        return self

    @property
    def given_parts(self) -> dict[str, nn.Module]:
        """The language model and the encoders, which a directory holds only where they are not as given."""
        return {LANGUAGE_MODEL: self.language_model, **self.encoders}

    @property
    def encoders(self) -> dict[str, nn.Module]:
        """Every encoder by its stream's name."""
        visual = {} if self.visual_encoder is None else {VISUAL: self.visual_encoder}
        return {**visual, **dict(self.audio_encoders.items())}

    def save_pretrained(
        self,
        directory: str | Path,
        *,
        save_language_model: bool | None = None,
        save_encoders: bool | None = None,
    ) -> None:
        """Saves the connector, and whatever of the rest is not as it was given to the constructor.

        What was trained is saved, although it may be frozen by now or be merged: the weights are compared with
        checksums that were taken when the model was put together. A cast of this model is no change. A
        ``PeftModel``'s adapters are saved, all of them; its base model only where it differs too.

        Args:
            directory: is made if it does not exist. It will hold ``connector/`` and, if they are saved,
                ``language_model/``, ``adapter/`` and ``encoders/``.
            save_language_model: the language model in full; without it, if it is trained or differs.
            save_encoders: the weights of all encoders; without it, of those that are trained or differ.

        Warns:
            UserWarning: a part that differs and is not saved, because the arguments say so; one that is not saved and
                had no values when it was given (meta or sharded tensors), so that changes are not seen; or one that is
                saved because it was cast by itself.

        Raises:
            InvalidValueError: a file where the directory should be, or adapters that only peft can save.
        """
        save(self, Path(directory), save_language_model, save_encoders)

    @classmethod
    def from_pretrained(
        cls,
        directory: str | Path,
        *,
        language_model: nn.Module | None = None,
        audio_encoders: Mapping[str, nn.Module] | None = None,
        visual_encoder: nn.Module | None = None,
        connector: nn.Module | None = None,
        is_trainable: bool = False,
        with_encoders: bool = True,
        verify: bool = True,
    ) -> Self:
        """Loads a saved model, in evaluation mode.

        Parts that were loaded by name are loaded again from there. Shapes and some values of every recorded part are
        compared with those of the saved model, so that a different part of the same shapes is an error.

        Args:
            directory: from :meth:`save_pretrained`.
            language_model: the base model, unless the directory holds or names it. An adapter is put into it, in place.
            audio_encoders: as in the constructor; those that are not given are loaded if the directory names them.
                Saved weights are loaded into them.
            visual_encoder: as in the constructor, likewise.
            connector: given where it has parts of your own classes:
                ``AudioVisualConnector.from_pretrained(directory / "connector", projector=...)``.
            is_trainable: train the adapter further.
            with_encoders: load the encoders that the directory names; ``False`` to work from features.
            verify: compare parts with the saved model's.

        Raises:
            CheckpointError: files that are missing, or parts other than those that the model was saved with.
            InvalidValueError: a language model or encoders that are missing, or given beside a saved one.
        """
        path = Path(directory)
        config = read_config(path)
        weight = config["diversity_weight"]
        given = {**(audio_encoders or {}), **({} if visual_encoder is None else {VISUAL: visual_encoder})}
        encoders = recorded_encoders(config, given) if with_encoders else given
        visual_encoder = encoders.pop(VISUAL, None)
        audio_encoders = encoders
        model = cls(
            language_model=load_language_model(path, config, language_model, is_trainable),
            connector=load_connector(path, config) if connector is None else connector,
            audio_encoders=audio_encoders,
            visual_encoder=visual_encoder,
            placeholder_token_id=config["placeholder_token_id"],
            diversity_loss=None if weight is None else DiversityLoss(weight=weight),
        )
        model.part_sources = {name: recorded_source(config, name) for name in config["parts"]}
        model.placeholder = config["placeholder"]
        if verify:
            model._verify(path, config)
        load_encoders(path, config, model.encoders)
        held = [LANGUAGE_MODEL] if config["language_model"] else []
        for name in [*held, *config["saved_encoders"]]:
            model.given_checksums[name] = None  # there is no other place that it could be taken from again
        return model.eval()

    def _verify(self, path: Path, config: Mapping[str, Any]) -> None:
        """Raises unless recorded parts are those of the saved model."""
        for name in set(config["parts"]) & set(self.given_parts):
            wanted = recorded_fingerprint(config, name)
            if wanted is not None:
                check_fingerprint(name, self.given_parts[name], wanted, str(path))
