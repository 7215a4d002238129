"""The error family: every fault that a user can cause or meet is one of these.

A message reads *what failed: subject: expected X, found Y. Fix: Z.* The parts stay on the error
(`subject`, `hint`), so that programs need not parse the sentence.
"""

from __future__ import annotations

from collections.abc import Iterable


class UnetzooError(Exception):
    """Base of the family.

    Args:
        what: What failed, in a few words.
        subject: The thing it failed on: a name, a file, a shape.
        expected: What would have been right.
        found: What was there instead.
        hint: What the user can do about it.
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
            message = f"{message.rstrip('.')}. Fix: {hint}"
        super().__init__(message)

    def __reduce__(self):
        """Keep the parts when the error travels between processes."""
        return _rebuild, (type(self), self.what, self.subject, self.expected, self.found, self.hint)


def _rebuild(cls: type[UnetzooError], what, subject, expected, found, hint) -> UnetzooError:
    return cls(what, subject=subject, expected=expected, found=found, hint=hint)


class ConfigError(UnetzooError, ValueError):
    """A wrong argument, recipe or setting."""

    exit_code = 2


class UnknownNameError(ConfigError):
    """A name that nothing bears."""


class UnknownKeywordError(UnknownNameError, TypeError):
    """A keyword that the called thing does not take."""


class MissingKeywordError(ConfigError, TypeError):
    """A keyword without a default that was not given."""


class DuplicateNameError(ConfigError):
    """One name, claimed more than once."""


class PluginError(UnetzooError):
    """A fault of an installed plugin."""

    exit_code = 5


class PluginLoadError(PluginError, ImportError):
    """A plugin that cannot be imported."""


class PluginBuildError(PluginError, RuntimeError):
    """A plugin that loads, but raises an error of its own when it is built; that error is the `__cause__`."""


class PluginContractError(PluginError, TypeError):
    """A plugin that loads but does not keep the contract of its kind."""


class DataError(UnetzooError, ValueError):
    """A fault of the user's data."""

    exit_code = 3


class ImageDecodeError(DataError):
    """A file that is no readable image."""


class ImageTooLargeError(DataError):
    """An image above the stated size limit."""


class LayoutError(DataError):
    """A folder whose files do not lie as the dataset expects; `subject` is the folder."""


class PairingError(DataError):
    """Images and masks that do not belong together one to one."""


class SizeMismatchError(DataError):
    """Sizes that should agree and do not."""


class InputShapeError(SizeMismatchError, RuntimeError):
    """A tensor that the network cannot take (SMP raises a RuntimeError here)."""


class LabelRangeError(DataError):
    """Label values that the label set does not know."""


class CacheError(DataError, OSError):
    """Derived data that cannot be kept, or are not what was kept."""


class UnsafeArchiveError(DataError):
    """An archive that would write outside its folder."""


class CheckpointError(UnetzooError):
    """A fault of a saved model or run."""

    exit_code = 4


class CheckpointCorruptError(CheckpointError):
    """A checkpoint whose content is not what was written."""


class CheckpointUnsafeError(CheckpointError):
    """A checkpoint that could run code when loaded."""


class CheckpointMismatchError(CheckpointError, ValueError):
    """A checkpoint of another model or run."""


class CheckpointWriteError(CheckpointError, OSError):
    """A checkpoint that could not be written."""


class TrainingError(UnetzooError):
    """A fault of a training run."""

    exit_code = 6


class NonFiniteError(TrainingError, ArithmeticError):
    """NaN or infinity in loss or gradients."""


class MemoryExhaustedError(TrainingError, MemoryError):
    """Not enough memory, even at the smallest batch."""


class RunLockedError(TrainingError):
    """A run folder that another process is writing."""

    exit_code = 75


def did_you_mean(name: str, choices: Iterable[str], what: str = "name") -> str:
    """The hint for a misspelt name: the nearest ones, or the whole list when none is near.

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
