"""The command line as a person types it: what Hydra needs changed about it, what Hydra says of it in one sentence, and
what would do the same again. A part of the entry: nothing else knows Hydra."""

import contextlib
import re
import shlex
from collections.abc import Iterator, Sequence

from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from trainer.errors import SettingError
from trainer.launch import Launch

NO_OVERRIDE = (
    "can't be read as OPTION=VALUE: no spaces around the =, brackets in pairs, and quotes around a text that has "
    "brackets, commas, or other than plain letters, digits and . _ - / : of its own, as in 'OPTION=\"a (1).npz\"'"
)


CONFIG_DIR = ("--config-dir", "-cd")

WITH_VALUE = (
    *CONFIG_DIR, "--config-path", "-cp", "--config-name", "-cn", "--cfg", "-c", "--package", "-p", "--info", "-i",
)  # fmt: skip
"""Hydra's flags that take a value."""


def ordered(arguments: Sequence[str]) -> list[str]:
    """The command's arguments as Hydra wants them: flags are not among the settings, which have to stand together.
    Raises ``SettingError`` for one that Hydra would stumble over."""
    for argument in arguments:
        if argument.startswith("="):
            raise SettingError(f"{argument} {NO_OVERRIDE}")
    flags: list[str] = []
    settings: list[str] = []
    words = iter(arguments)
    for word in words:
        (flags if word.startswith("-") else settings).append(word)
        if word in WITH_VALUE:
            flags += [value for value in [next(words, None)] if value is not None]
    return [*flags, *settings]


def repeating(launch: Launch, arguments: Sequence[str], overrides: Sequence[str]) -> str:
    """What to type for a job once more, in another directory: one line. ``arguments`` are the command's, as ``ordered``
    gives them, ``overrides`` the job's settings, which in a sweep are others."""
    program = "python"
    if launch.by_torchrun:
        nodes = "" if launch.one_node else f"--nnodes={-(-launch.world_size // launch.local_world_size)} "
        program = f"torchrun {nodes}--nproc_per_node={launch.local_world_size}"
    folders: list[str] = []
    for index, word in enumerate(arguments):
        if word in CONFIG_DIR:
            folders += arguments[index : index + 2]
        elif word.startswith((*(f"{flag}=" for flag in CONFIG_DIR), "hydra.searchpath=")):
            folders.append(word)
    others = [override for override in overrides if not override.startswith("output_dir=")]
    return " ".join([program, "-m trainer.main", *map(shlex.quote, [*folders, *others])]).replace("\n", " ")


@contextlib.contextmanager
def hydra_errors_as_sentences() -> Iterator[None]:
    """Raise ``SettingError`` for what Hydra and OmegaConf raise: their words come on several lines, and a cause says
    what is wrong."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise SettingError(_sentence(error)) from error
    except ValueError as error:
        if not str(error).startswith("Config group override must"):
            raise
        raise SettingError(
            "a group of settings can't be null; choose one of its files in conf/, or leave it out"
        ) from error


def _sentence(error: Exception) -> str:
    text = str(error)
    if isinstance(error, OverrideParseException):
        return f"{error.override} {NO_OVERRIDE}"
    if unknown := re.search(
        r"Could not find '([^']+)/([^'/]+)'\s+Available options in '[^']+':\s+(.*?)\s+Config search", text, re.S
    ):
        group, name, files = unknown.groups()
        return f"{group}={name} is unknown; it is one of {', '.join(files.split())}"
    if several := re.search(r"Ambiguous value for argument '([^'=]+)=([^']*)'", text):
        name, values = several.groups()
        return (
            f"{name}={values} gives several values; add --multirun to run with one after another, or write a list as "
            f"{name}=[{values}]"
        )
    if option := re.search(r"Could not override '([^']+)'", text):
        return f"{option[1]} is no option; python -m trainer.main --help lists them all"
    text = text.removeprefix("Error merging override ")
    lines = [text, *([str(error.__cause__)] if error.__cause__ else [])]
    said = ": ".join(line.splitlines()[0].strip() for line in lines if line.strip())
    setting = getattr(error, "full_key", None)
    return said if not setting or setting in said else f"{setting}: {said}"
