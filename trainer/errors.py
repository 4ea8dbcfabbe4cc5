"""The errors a person is meant to read: each is one sentence, and each has an exit status."""


class TrainerError(Exception):
    """Base of every error that ends a run with a sentence instead of a traceback."""

    exit_status = 1


class SettingError(TrainerError):
    """A setting, file or environment that the run cannot work with. Names it, its value and what would be right."""

    exit_status = 2


class NonFiniteLossError(TrainerError):
    """A local loss became NaN or infinite."""


class PeerError(TrainerError):
    """A neighbouring rank went away or stopped answering; the cause is that rank's own error."""


class PacketError(TrainerError):
    """A packet arrived that is not the one expected: the two sides of an edge disagree."""
