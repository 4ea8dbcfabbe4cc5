"""The entry: ``torchrun --nproc_per_node=4 -m trainer.main [overrides]``, or ``python -m trainer.main`` for one
process."""

import contextlib
import io
import os
import re
import sys
import time
import traceback
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from trainer.errors import PeerError, SettingError, TrainerError
from trainer.rank import Launch, Rank
from trainer.run import Run
from trainer.rundir import RunDirectory
from trainer.settings import Settings, check
from trainer.usage import usage

CONFIGS = Path(__file__).parent / "conf"
"""The folder ``conf/`` of a checkout (a link) and of an installed package (a copy)."""

GRACE_SECONDS = 30.0
"""How long a rank whose error another rank reports waits for the launcher to end it."""

PEER_SECONDS = 2.0
"""How long a rank that lost a peer waits for the peer's own error."""


def main() -> None:
    """Compose the configuration, run the job or the sweep, and turn what a person can mend into one sentence."""
    show_traceback = os.environ.get("HYDRA_FULL_ERROR", "0") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on instead of printing them on every rank
    launch = None
    try:
        launch = Launch.from_environment()
        _compose_and_run(launch, show_traceback)
    except Exception as error:
        _fail(error, launch, show_traceback)


def _compose_and_run(launch: Launch, show_traceback: bool) -> None:
    """Hand over to Hydra. Only rank 0 may print while the configuration is composed."""
    ConfigStore.instance().store("schema", Settings)
    OmegaConf.register_new_resolver("launch_stamp", launch.stamp, replace=True)
    OmegaConf.register_new_resolver("usage", lambda: usage(CONFIGS), replace=True)
    silence = contextlib.ExitStack()
    if launch.rank != 0:
        silence.enter_context(contextlib.redirect_stdout(io.StringIO()))
        silence.enter_context(contextlib.redirect_stderr(io.StringIO()))

    def task(settings: DictConfig) -> float:
        silence.close()
        try:
            return run_job(settings, launch)
        except Exception as error:  # not left to Hydra, which would announce it on every rank
            _fail(error, launch, show_traceback)

    with silence:
        hydra.main(version_base="1.3", config_path=str(CONFIGS.resolve()), config_name="config")(task)()


def run_job(settings: DictConfig, launch: Launch) -> float:
    """One job: a whole run, or its preview; gives the test accuracy of the whole model, on every rank."""
    checked: Any = OmegaConf.to_object(settings)
    check(checked)
    hydra_config = HydraConfig.get()
    swept = hydra_config.mode == RunMode.MULTIRUN
    job = hydra_config.job.num if swept else 0
    rank = Rank.join(launch, job, settings.device, settings.threads, settings.timeout_seconds)
    try:
        config: dict[str, Any] = OmegaConf.to_container(settings, resolve=True)  # type: ignore[assignment]
        run = Run(config, rank)
        if settings.dry_run:
            if rank.rank == 0:
                run.preview()
            return 0.0
        path = launch.control(f"job{job}").agree("directory", lambda: str(_directory(settings, launch, swept).path))
        directory = RunDirectory(Path(path))
        config["output_dir"], config["threads"] = str(directory.path), rank.threads
        accuracy = run.train(directory, OmegaConf.to_yaml(OmegaConf.create(config)))
        return rank.control.agree("accuracy", lambda: accuracy)
    finally:
        if sys.exc_info()[0] is None:
            rank.leave()


def _directory(settings: DictConfig, launch: Launch, swept: bool) -> RunDirectory:
    """The run directory: the one given, a job's own in a sweep, or a new one."""
    if not swept:
        return RunDirectory.create(settings.output_dir, launch.stamp())
    if settings.output_dir is not None and not OmegaConf.is_interpolation(settings, "output_dir"):
        raise SettingError(
            f"output_dir={settings.output_dir} would be one directory for every job of the sweep; set "
            f"hydra.sweep.dir instead"
        )
    return RunDirectory.create(settings.output_dir or HydraConfig.get().runtime.output_dir, launch.stamp())


def _fail(error: Exception, launch: Launch | None, show_traceback: bool) -> NoReturn:
    """Report an error once for all ranks, and leave with its exit status. What is nobody's setting is a mistake of the
    program's: its traceback belongs to whoever reads this."""
    mendable = isinstance(error, TrainerError | HydraException | OmegaConfBaseException)
    status = error.exit_status if isinstance(error, TrainerError) else 2 if mendable else 1
    if launch is not None and launch.world_size > 1 and not _speaks(error, launch):
        time.sleep(GRACE_SECONDS)
        os._exit(status)
    print(f"error: {sentence(error)}", file=sys.stderr)
    if show_traceback or not mendable:
        traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _speaks(error: Exception, launch: Launch) -> bool:
    """Whether this rank's error is the one that people read: the first of the job, but that of a lost peer only after
    the peer had its chance."""
    if isinstance(error, PeerError):
        time.sleep(PEER_SECONDS)
    try:
        return launch.control("errors", f"attempt{launch.restarts}").claim_error()
    except RuntimeError:  # without the store nobody can be asked
        return True


def sentence(error: BaseException) -> str:
    """An error as one line. Those of Hydra and OmegaConf come on several, and say in a cause what is wrong."""
    if isinstance(error, TrainerError):
        return str(error)
    if not isinstance(error, HydraException | OmegaConfBaseException):
        return f"{type(error).__name__}: {error}"
    text = str(error)
    if unknown := re.search(
        r"Could not find '([^']+)/([^'/]+)'\s+Available options in '[^']+':\s+(.*?)\s+Config search", text, re.S
    ):
        group, name, files = unknown.groups()
        return f"{group}={name} is unknown; it is one of {', '.join(files.split())}"
    if option := re.search(r"Could not override '([^']+)'", text):
        return f"{option[1]} is no option; python -m trainer.main --help lists them all"
    lines = [text, *([str(error.__cause__)] if error.__cause__ else [])]
    return ": ".join(line.splitlines()[0].strip() for line in lines if line.strip())


if __name__ == "__main__":
    main()
