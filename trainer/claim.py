"""Where a job writes: the run directory that its settings, the sweep or the clock give, which no other run may use."""

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from trainer.checkpoint.decide import Decision, decide
from trainer.errors import SettingError
from trainer.launch import Launch
from trainer.rundir import RunDirectory


def check_directories(settings: DictConfig, swept: bool) -> None:
    """Refuse a directory given where it does not count."""
    if swept and settings.output_dir is not None and not OmegaConf.is_interpolation(settings, "output_dir"):
        raise SettingError(
            f"output_dir={settings.output_dir} can't be set in a sweep, whose jobs have a directory each; set "
            f"hydra.sweep.dir instead"
        )
    own = HydraConfig.get().run.dir
    if not swept and own != ".":
        raise SettingError(f"hydra.run.dir={own} is not where a run writes; set output_dir instead")


def sweep_of_job() -> str | None:
    """The directory of the sweep that the job is one of, or None."""
    hydra = HydraConfig.get()
    return str(hydra.sweep.dir) if hydra.mode == RunMode.MULTIRUN else None


class Claim:
    """A job's claim to a run directory, which rank 0 finds and every rank is told."""

    def __init__(self, settings: DictConfig, launch: Launch, job: int, swept: bool) -> None:
        self._settings, self._launch, self._job = settings, launch, job
        self._swept = Path(HydraConfig.get().runtime.output_dir) if swept else None
        self._control = launch.control(f"job{job}")
        self._lock: int | None = None

    def decide(self) -> Decision:
        """On rank 0: what the run begins with."""
        earlier = self._control.agreed("directory")  # where this launch has made it before
        given = earlier or self._settings.output_dir or self._swept
        directory = None if given is None else Path(given).expanduser().absolute()
        if directory is not None and directory.is_dir() and not self._settings.dry_run:
            self._take(RunDirectory(directory), earlier is not None)
        return decide(self._settings.resume, self._settings.init_from, directory, earlier is not None)

    def directory(self) -> RunDirectory:
        """The run directory: the one given, a job's own in a sweep, or a new one. Raises ``SettingError`` where it
        can't be made or is another's."""
        return RunDirectory(Path(self._control.agree("directory", self._make)))

    def leave(self) -> None:
        """Let others use it."""
        if self._lock is not None:
            with suppress(OSError):
                fcntl.flock(self._lock, fcntl.LOCK_UN)  # worker processes may have it open for some seconds more
            os.close(self._lock)

    def _make(self) -> str:
        given = self._settings.output_dir or self._swept
        directory = RunDirectory.create(None if given is None else str(given), self._launch.stamp())
        if self._lock is None:
            self._take(directory, restarted=False)
        return str(directory.path)

    def _take(self, directory: RunDirectory, restarted: bool) -> None:
        """Keep other runs out, and other jobs of the same sweep for as long as the launch lasts."""
        self._lock = directory.lock(restarted)
        owner = self._launch.control("jobs").agree(str(directory.path.resolve()), lambda: self._job)
        if owner != self._job:
            raise SettingError(
                f"jobs {owner} and {self._job} of the sweep would share the directory {directory.path}; give each its "
                f"own by hydra.sweep.subdir or output_dir"
            )
