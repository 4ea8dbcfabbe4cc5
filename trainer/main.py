"""The entry: ``torchrun --nproc_per_node=4 -m trainer.main [overrides]``, or ``python -m trainer.main`` for one
process."""

import contextlib
import gc
import io
import os
import signal
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # Importing torch leaves a million objects. Python would search them for garbage again and again while a job starts,
    # and in training a search holds up a step. So there is none before training begins, and never one among them.
    gc.disable()

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from trainer.checkpoint.decide import begin
from trainer.checkpoint.start import start_of
from trainer.command_line import hydra_errors_as_sentences, ordered, repeating
from trainer.errors import SettingError
from trainer.failing import end_with_others, fail
from trainer.kernels import kernels
from trainer.launch import Launch
from trainer.claim import Claim, check_directories, sweep_of_job
from trainer.rank import Rank
from trainer.run import Run
from trainer.settings import Settings, check
from trainer.shared import require_shared
from trainer.training import train
from trainer.transport.heartbeat import Beats, heartbeat
from trainer.usage import usage

CONFIGS = Path(__file__).parent / "conf"
"""The folder ``conf/`` of a checkout (a link) and of an installed package (a copy)."""


def main() -> None:
    """Compose the configuration, run the job or the sweep, and turn what a person can mend into one sentence."""
    show_traceback = os.environ.get("HYDRA_FULL_ERROR", "0") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra hands its errors on instead of printing them on every rank
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a path may have letters that the terminal has not
    launch = None
    try:
        launch = Launch.from_environment().connected()
        sys.argv[1:] = ordered(sys.argv[1:])
        with hydra_errors_as_sentences():
            _compose_and_run(launch, show_traceback)
    except BrokenPipeError:  # whoever read the output, such as `head`, has had enough
        os._exit(128 + signal.SIGPIPE)
    except Exception as error:
        fail(error, launch, show_traceback)
    except KeyboardInterrupt:
        if launch is None or launch.rank == 0:
            print("interrupted", file=sys.stderr, flush=True)
        os._exit(128 + signal.SIGINT)


def _compose_and_run(launch: Launch, show_traceback: bool) -> None:
    """Hand over to Hydra. Only rank 0 may print while the configuration is composed."""
    ConfigStore.instance().store("schema", Settings)
    OmegaConf.register_new_resolver("launch_stamp", launch.stamp, replace=True)
    OmegaConf.register_new_resolver("usage", _usage, replace=True)
    silence = contextlib.ExitStack()
    if launch.rank != 0:
        silence.enter_context(contextlib.redirect_stdout(io.StringIO()))
        silence.enter_context(contextlib.redirect_stderr(io.StringIO()))

    def task(settings: DictConfig) -> float:
        """One job, for Hydra to call; an error ends the process."""
        silence.close()
        try:
            with hydra_errors_as_sentences():
                return run_job(settings, launch)
        except Exception as error:  # not left to Hydra, which would announce it on every rank
            if launch.rank == 0 and (sweep := sweep_of_job()) is not None:
                print(f"this ends the sweep; with hydra.sweep.dir={sweep} the same command goes on with it", flush=True)
            fail(error, launch, show_traceback)

    with silence:
        hydra.main(version_base="1.3", config_path=str(CONFIGS.resolve()), config_name="config")(task)()


def _usage(*, _root_: DictConfig) -> str:
    """The text of ``--help`` for the composed configuration."""
    settings = OmegaConf.masked_copy(_root_, [str(key) for key in _root_ if key != "hydra"])
    config: Any = OmegaConf.to_container(settings, resolve=True)
    return usage(CONFIGS, config, HydraConfig.get().runtime.choices)


def run_job(settings: DictConfig, launch: Launch) -> float:
    """One job: a whole run, or its preview; gives the test accuracy of the whole model, on every rank."""
    with (
        heartbeat(Beats.of(launch), end_with_others(launch, settings.timeout_seconds)),
        kernels(settings.deterministic, settings.cudnn_benchmark, settings.compile),
    ):
        return _run_job(settings, launch)


def _run_job(settings: DictConfig, launch: Launch) -> float:
    checked: Any = OmegaConf.to_object(settings)
    if not isinstance(checked, Settings):
        raise SettingError(
            "--config-path and --config-name give a configuration of another kind; leave them out, and give settings "
            "as OPTION=VALUE"
        )
    check(checked, list(map(str, settings)))
    hydra_config = HydraConfig.get()
    swept = hydra_config.mode == RunMode.MULTIRUN
    check_directories(settings, swept)
    job = hydra_config.job.num if swept else 0
    if swept and launch.rank == 0:
        print(f"job {job} of the sweep: {' '.join(hydra_config.overrides.task)}", flush=True)
    rank = Rank.join(launch, job, settings.device, settings.threads, settings.timeout_seconds)
    claim = Claim(settings, launch, job, swept)
    try:
        config: dict[str, Any] = OmegaConf.to_container(settings, resolve=True)  # type: ignore[assignment]
        decision = rank.control.agree("start", claim.decide)
        run = Run(config, rank, start_of(decision, config))
        if settings.dry_run:
            if rank.rank == 0:
                run.preview()
            return 0.0
        directory = claim.directory()
        if not launch.one_node:
            require_shared(directory.path, rank.control)
        config["output_dir"], config["threads"] = str(directory.path), rank.threads
        config["dataset"] = _with_absolute_paths(config["dataset"])
        summary = rank.control.agree("finished", lambda: run.finished(directory))
        if summary is not None:
            if rank.rank == 0:
                run.show(summary, directory)
            return float(summary["test_accuracy"] or 0.0)
        rank.control.agree("begun", lambda: begin(directory, decision))
        again = repeating(launch, sys.argv[1:], hydra_config.overrides.task)
        return train(run, directory, f"# {again}\n{OmegaConf.to_yaml(OmegaConf.create(config))}")
    finally:
        if sys.exc_info()[0] is None:
            rank.leave()
        claim.leave()


def _with_absolute_paths(dataset: dict[str, Any]) -> dict[str, Any]:
    """The group ``dataset`` for people and programs that read it in another folder."""
    paths = {key: dataset[key] for key in ("path", "root") if isinstance(dataset.get(key), str)}
    return {**dataset, **{key: str(Path(path).expanduser().absolute()) for key, path in paths.items()}}


if __name__ == "__main__":
    gc.freeze()
    main()
