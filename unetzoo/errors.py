"""Exceptions. Every error that a user can cause derives from `UnetzooError`.

A message reads *what failed: subject: expected X, found Y. Fix: Z.*, with the fix on a line of its own if `found` has
several lines. The parts are attributes of the error (`subject`, `hint`), so that programs need not parse the message.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

PARTS = ("what", "subject", "expected", "found", "hint")


class UnetzooError(Exception):
    """Base class of all our errors.

    Args:
        what: What failed, in a few words.
        subject: What it failed on: a name, a file, a shape.
        expected: What was expected.
        found: What was found instead.
        hint: How to fix it.
    """

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        subject: object = None,
        expected: object = None,
        found: object = None,
        hint: str | None = None,
    ) -> None:
        self.what, self.subject, self.expected, self.found, self.hint = what, subject, expected, found, hint
        message = what if subject is None else f"{what}: {subject}"
        facts = [f"{word} {value}" for word, value in (("expected", expected), ("found", found)) if value is not None]
        if facts:
            message += ": " + ", ".join(facts)
        if hint:
            listed = "\n" in str(found)
            message = f"{message}\nFix: {hint}" if listed else f"{message.rstrip('.')}. Fix: {hint}"
        super().__init__(message)

    def replace(self, **parts: object) -> Self:
        """Return the same error with some of its parts changed.

        Examples:
            >>> print(UnetzooError("no such file", subject="a.png").replace(hint="check the path"))
            no such file: a.png. Fix: check the path
        """
        return _rebuild(type(self), **{name: getattr(self, name) for name in PARTS} | parts)

    def __reduce__(self):
        """Keep the parts when the error is pickled."""
        return _rebuild, (type(self), self.what, self.subject, self.expected, self.found, self.hint)


def _rebuild(cls, what, subject, expected, found, hint):
    return cls(what, subject=subject, expected=expected, found=found, hint=hint)


class ConfigError(UnetzooError, ValueError):
    """Invalid argument, recipe or setting."""

    exit_code = 2


class UnknownNameError(ConfigError):
    """Unknown registry name."""


class UnknownKeywordError(UnknownNameError, TypeError):
    """Unknown keyword argument."""


class MissingKeywordError(ConfigError, TypeError):
    """Missing required keyword argument."""


class DuplicateNameError(ConfigError):
    """A name that is registered more than once."""


class PluginError(UnetzooError):
    """An installed plugin is broken."""

    exit_code = 5


class PluginLoadError(PluginError, ImportError):
    """A plugin cannot be imported."""


class PluginBuildError(PluginError, RuntimeError):
    """A plugin raised an error when its object was built; that error is the `__cause__`."""


class PluginContractError(PluginError, TypeError):
    """A plugin violates the contract of its kind."""


class DataError(UnetzooError, ValueError):
    """Invalid data."""

    exit_code = 3


class ImageDecodeError(DataError):
    """A file cannot be read as an image."""


class UnsupportedImageError(ImageDecodeError):
    """An image that may be whole, but of a kind that is not read."""


class ImageTooLargeError(DataError):
    """An image exceeds the size limit."""


class LayoutError(DataError):
    """A folder without the layout that the dataset expects; `subject` is the folder."""


class PairingError(DataError):
    """Images and masks do not match one to one."""


class SizeMismatchError(DataError):
    """Sizes do not match."""


class InputShapeError(SizeMismatchError, RuntimeError):
    """A network cannot process an input of this shape (SMP raises a RuntimeError here)."""


class LabelRangeError(DataError):
    """Label values are not in the label set."""


class CacheError(DataError, OSError):
    """A cache cannot be written, or was modified."""


class UnsafeArchiveError(DataError):
    """An archive would write outside its folder, or is too large."""


class CheckpointError(UnetzooError):
    """A saved model or run is invalid."""

    exit_code = 4


class CheckpointCorruptError(CheckpointError):
    """The content of a checkpoint was modified or is incomplete."""


class CheckpointUnsafeError(CheckpointError):
    """Loading a checkpoint could run code."""


class CheckpointMismatchError(CheckpointError, ValueError):
    """A checkpoint belongs to another model or run."""


class CheckpointWriteError(CheckpointError, OSError):
    """A checkpoint cannot be written."""


class TrainingError(UnetzooError):
    """A training run failed."""

    exit_code = 6


class NonFiniteError(TrainingError, ArithmeticError):
    """NaN or infinity in the loss or gradients."""


class MemoryExhaustedError(TrainingError, MemoryError):
    """Out of memory, even with the smallest batch."""


class RunLockedError(TrainingError):
    """Another process is writing to the folder."""

    exit_code = 75


def did_you_mean(name: str, choices: Iterable[str], what: str = "name") -> str:
    """The hint for a misspelled name: the closest matches, or all choices if none is close.

    Examples:
        >>> did_you_mean("r2unett", ["fpn", "r2unet"])
        "did you mean 'r2unet'?"
    """
    import difflib

    choices = sorted(choices)
    near = difflib.get_close_matches(name, choices, n=3, cutoff=0.6)
    if near:
        return "did you mean " + " or ".join(repr(n) for n in near) + "?"
    if not choices:
        return f"there is no {what} to choose from"
    return f"choose a {what} from: " + ", ".join(choices)
