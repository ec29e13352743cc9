"""How a property is examined: in evaluation mode, compared within a tolerance, and named where it does not hold."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from avfusion.errors import ConformanceError
from avfusion.types.structure import missing

_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}


class Exam:
    """One part under examination.

    Args:
        part: an encoder.
        tolerance: largest difference that counts as none, as a share of the largest value; by dtype without it.
    """

    def __init__(self, part: Any, tolerance: float | None) -> None:
        self.part = part
        self.tolerance = tolerance

    def fail(self, name: str, rule: str, found: str, hint: str) -> NoReturn:
        """Raises :class:`~avfusion.ConformanceError` for the property ``name``."""
        raise ConformanceError(f'{type(self.part).__name__} breaks "{name}": {rule}, found {found}; {hint}')

    def run(self, name: str, rule: str, hint: str, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """What ``call`` gives for the arguments; an exception from inside the part is that property's failure."""
        try:
            return call(*arguments, **named)
        except ConformanceError:
            raise
        except Exception as error:
            said = str(error).splitlines() or [""]
            message = (
                f'{type(self.part).__name__} breaks "{name}": {rule}, found {type(error).__name__}: {said[0]}; {hint}'
            )
            raise ConformanceError(message) from error

    def difference(self, found: Tensor, wanted: Tensor) -> float | None:
        """The largest difference of values that should be the same; ``None`` where it is within the tolerance."""
        if not wanted.numel():
            return None
        found, exact = found.detach().double().cpu(), wanted.detach().double().cpu()
        largest = (found - exact).abs().max().item()
        tolerance = _TOLERANCE.get(wanted.dtype, 0.05) if self.tolerance is None else self.tolerance
        return None if largest <= tolerance * max(exact.abs().max().item(), 1e-12) else largest

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode, and afterwards the mode that each module was in."""
        modules = list(self.part.modules()) if isinstance(self.part, nn.Module) else []
        modes = [module.training for module in modules]
        try:
            if isinstance(self.part, nn.Module):
                self.part.eval()
            yield
        finally:
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode

    def check_numbers(self, *names: str) -> None:
        """Whether the part is callable and has these attributes, whole numbers of at least 1."""
        if not callable(self.part):
            self.fail("protocol", "it must be callable", "no __call__", "write a forward method")
        for name in names:
            value = getattr(self.part, name, None)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                hint = f"set self.{name} in __init__"
                self.fail("protocol", f"{name} must be a whole number of at least 1", repr(value), hint)

    def check_protocol(self, protocol: type, hint: str) -> None:
        """Whether the part satisfies a Protocol; the failure names what it lacks."""
        lacking = missing(self.part, protocol)
        if lacking:
            self.fail("protocol", f"it must be a {protocol.__name__}", f"none of {', '.join(lacking)}", hint)

    def parameters(self) -> dict[str, nn.Parameter]:
        """Floating parameters by name; none of a part that is no module."""
        named = self.part.named_parameters() if isinstance(self.part, nn.Module) else ()
        return {name: value for name, value in named if value.is_floating_point()}

    def own_dtype(self) -> torch.dtype | None:
        """The part's dtype: what it says itself, or that of its first parameter."""
        first = next(iter(self.parameters().values()), None)
        said = getattr(self.part, "dtype", None)
        return said if isinstance(said, torch.dtype) else None if first is None else first.dtype

    def copies(self, dtypes: Sequence[torch.dtype]) -> Iterator["Exam"]:
        """Copies of the part in other dtypes, made one after the other."""
        for dtype in dtypes:
            with torch.no_grad():
                yield Exam(copy.deepcopy(self.part).to(dtype), self.tolerance)

    def check_gradients(self, tokens: Tensor, *, hint: str) -> dict[str, Tensor]:
        """Whether tokens carry gradients if, and only if, something is trained; what reaches the parameters.

        Args:
            tokens: real ones, made with gradients enabled.
            hint: how to keep gradients finite.
        """
        trained = {name: value for name, value in self.parameters().items() if value.requires_grad}
        if not trained:
            if tokens.requires_grad:
                self.fail(
                    "gradients",
                    "where no parameter is trained no graph must be kept",
                    "tokens that require gradients",
                    "run the frozen tower under torch.no_grad()",
                )
            return {}
        if not tokens.requires_grad:
            self.fail(
                "gradients",
                "tokens of an encoder with trainable parameters must carry gradients",
                "tokens that require none",
                "take away torch.no_grad() or detach(), or freeze it: encoder.requires_grad_(False)",
            )
        weights = torch.linspace(-1, 1, tokens.numel(), dtype=torch.float64, device=tokens.device)
        total = (tokens.double().flatten() * weights).sum()
        given = torch.autograd.grad(total, list(trained.values()), allow_unused=True)
        reached = {name: value for name, value in zip(trained, given, strict=True) if value is not None}
        if not reached:
            self.fail("gradients", "gradients must reach the parameters", "none that does", "keep the graph whole")
        broken = [name for name, value in reached.items() if not bool(value.isfinite().all())]
        if broken:
            self.fail("gradients", "gradients must be finite", f"NaN or infinity in that of {broken[0]}", hint)
        return reached
