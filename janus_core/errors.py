"""Errors of the models.

JanusCoreError
├── UnknownModel            neither a checkpoint folder nor a registered model, pulled to the end
├── PullFailed              the hub could not be reached, or has no such files
├── DeviceUnavailable       the device or dtype asked for cannot be used here
├── CheckpointError         the folder cannot be loaded
│   ├── ConfigInvalid       config.json is missing, broken, or of a model we do not build
│   ├── WeightsNotFound     no weight file, or an index that names absent files
│   ├── KeysMismatch        tensors missing, unexpected or of another shape; each is named
│   ├── TokenizerInvalid    tokenizer.json is missing or lacks a special token
│   ├── NeverLocked         the folder has no janus.lock.json to compare with
│   └── LockMismatch        files differ from janus.lock.json; each is named
├── TokenCountMismatch      image tokens do not fill their grid
├── DataInvalid             what was given to train on cannot be read
└── RunMismatch             a folder holds a training run that was begun with other options

A request that cannot be served is no error: it comes back as `Rejected` in its place.
"""

from __future__ import annotations

from collections.abc import Sequence

_SHOWN = 20


class JanusCoreError(Exception):
    """Base of every error that this package raises on purpose."""


class UnknownModel(JanusCoreError):
    """Neither a checkpoint folder nor the name of a model that is shipped or was pulled."""


class PullFailed(JanusCoreError):
    """The hub could not be reached, or has no such files."""


class DeviceUnavailable(JanusCoreError):
    """The device or dtype asked for cannot be used here."""


class CheckpointError(JanusCoreError):
    """The checkpoint folder cannot be loaded."""


class ConfigInvalid(CheckpointError):
    """config.json is missing, broken, or describes a model that is not built here."""


class WeightsNotFound(CheckpointError):
    """No weight file, or an index that names files which are not there."""


class KeysMismatch(CheckpointError):
    """The tensors of a checkpoint are not those of its config.

    Fields: `missing`, `unexpected` and `misshaped`, complete; the message shows the first of each.
    """

    def __init__(self, where: str, missing: Sequence[str], unexpected: Sequence[str], misshaped: Sequence[str]) -> None:
        self.missing = tuple(missing)
        self.unexpected = tuple(unexpected)
        self.misshaped = tuple(misshaped)
        parts = [
            f"{len(names)} {what}: {', '.join(names[:_SHOWN])}{' …' if len(names) > _SHOWN else ''}"
            for what, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshaped))
            if names
        ]
        super().__init__(f"{where}: the tensors do not fit the config. " + "; ".join(parts))


class TokenizerInvalid(CheckpointError):
    """tokenizer.json is missing or lacks a special token."""


class NeverLocked(CheckpointError):
    """The folder has no janus.lock.json; it may be a checkpoint of one's own."""


class LockMismatch(CheckpointError):
    """Files differ from janus.lock.json. Fields: `missing` and `differing`, by name."""

    def __init__(self, where: str, missing: Sequence[str], differing: Sequence[str], *, pulled: bool = True) -> None:
        self.missing = tuple(missing)
        self.differing = tuple(differing)
        parts = [
            f"{what}: {', '.join(names)}" for what, names in (("missing", missing), ("differing", differing)) if names
        ]
        remedy = (
            "Pull the model again." if pulled else "Restore them, or delete janus.lock.json and lock the folder anew."
        )
        super().__init__(f"{where} is not what janus.lock.json says. {'; '.join(parts)}. {remedy}")


class TokenCountMismatch(JanusCoreError):
    """The number of image tokens does not fill the grid."""


class DataInvalid(JanusCoreError):
    """What was given to train on cannot be read; the message says which line or file."""


class RunMismatch(JanusCoreError):
    """The folder holds a training run that was begun with other options; the message names them."""
