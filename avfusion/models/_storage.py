"""What is trained, to a directory and back."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from avfusion.models._features import VISUAL
from avfusion.models._given import Checksums, as_given, checksums, follow_cast
from avfusion.models._loading import load_connector, load_encoders, load_language_model, read_config
from avfusion.models._saving import save
from avfusion.modules import DiversityLoss

LANGUAGE_MODEL = "language_model"


class StoredModel(nn.Module):
    """What saves and loads :class:`~avfusion.models.AudioVisualLanguageModel`: whatever of it is trained."""

    language_model: Any
    connector: Any
    audio_encoders: nn.ModuleDict
    visual_encoder: nn.Module | None
    placeholder_token_id: int
    diversity_loss: DiversityLoss | None
    given_checksums: dict[str, Checksums | None]

    def _settle(self) -> None:
        """Ends the construction: keeps in mind what was given."""
        self.given_checksums = {name: checksums(part) for name, part in self.given_parts.items()}

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
    ) -> Self:
        """Puts a saved model together again, in evaluation mode.

        Args:
            directory: from :meth:`save_pretrained`.
            language_model: the base model, unless the directory holds it in full. An adapter is put into it, in place.
            audio_encoders: as in the constructor; what the directory holds of their weights is loaded into them.
            visual_encoder: as in the constructor, likewise. An encoder of which the directory holds no weights may be
                left out, to work from features.
            connector: given where it has parts of your own classes:
                ``AudioVisualConnector.from_pretrained(directory / "connector", projector=...)``.
            is_trainable: train the adapter further.

        Raises:
            CheckpointError: files that are missing, or do not fit the given parts.
            InvalidValueError: a language model or encoders that are missing, or given beside a saved one.
        """
        path = Path(directory)
        config = read_config(path)
        weight = config["diversity_weight"]
        model = cls(
            language_model=load_language_model(path, config, language_model, is_trainable),
            connector=load_connector(path, config) if connector is None else connector,
            audio_encoders=audio_encoders,
            visual_encoder=visual_encoder,
            placeholder_token_id=config["placeholder_token_id"],
            diversity_loss=None if weight is None else DiversityLoss(weight=weight),
        )
        load_encoders(path, config, model.encoders)
        held = [LANGUAGE_MODEL] if config["language_model"] else []
        for name in [*held, *config["saved_encoders"]]:
            model.given_checksums[name] = None  # there is no other place that it could be taken from again
        return model.eval()
