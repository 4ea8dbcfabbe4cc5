"""The errors a person is meant to read: each is one sentence, and each has an exit status."""

import signal
from collections.abc import Mapping


class TrainerError(Exception):
    """Base of every error that ends a run with a sentence instead of a traceback."""

    exit_status = 1


class SettingError(TrainerError):
    """A setting, file or environment that the run cannot work with. Names it, its value and what would be right."""

    exit_status = 2


def at_least(least: float, settings: Mapping[str, float | None]) -> None:
    """Raise ``SettingError`` for a setting, given by its name, that is below ``least``. None is no value."""
    for name, value in settings.items():
        if value is not None and value < least:
            raise SettingError(f"{name}={value} must be at least {least}")


def check_share(name: str, share: float) -> None:
    """Raise ``SettingError`` unless a share lies between 0 and 1."""
    if not 0 <= share <= 1:
        raise SettingError(f"{name}={share} must lie between 0 and 1")


def check_rate(name: str, rate: float) -> None:
    """Raise ``SettingError`` unless a rate is at least 0 and below 1."""
    if not 0 <= rate < 1:
        raise SettingError(f"{name}={rate} must be at least 0 and below 1")


class NonFiniteLossError(TrainerError):
    """A local loss became NaN or infinite."""


class PeerError(TrainerError):
    """A neighboring rank went away or stopped answering; the cause is that rank's own error."""


class PacketError(TrainerError):
    """A packet arrived that is not the one expected: the two sides of an edge disagree."""


class StoppedError(TrainerError):
    """A signal ended the run before its time; it can be resumed. Every rank raises it, rank 0 says it."""

    @classmethod
    def after(cls, last_step: int, number: int | None) -> "StoppedError":
        """``last_step`` is the last step that was done, ``number`` that of the signal where this rank knows it."""
        name = signal.Signals(number).name if number is not None else "a signal"
        error = cls(
            f"{name} ended the run after step {last_step}; the same command with the same output_dir goes on from its "
            f"last checkpoint"
        )
        error.exit_status = 128 + (number or signal.SIGTERM)
        return error
