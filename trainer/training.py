"""Doing a run, once it is known what it is made of: steps and tests, who hears of them, and the files they leave."""

import gc
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from trainer.checkpoint.collector import Collector, RunIdentity
from trainer.checkpoint.keeper import Keeper, Rhythm
from trainer.clock import Clock, forget_peak_memory
from trainer.engines.base import Job
from trainer.errors import SettingError, StoppedError
from trainer.files import write_text, write_whole
from trainer.learner import Learner
from trainer.reporting.background import CLOSE_SECONDS, Background
from trainer.reporting.board import Board, Taker, summarize
from trainer.reporting.console import Console
from trainer.reporting.journal import Journal
from trainer.reporting.measure import LEFT_OUT_STEPS
from trainer.reporting.reporter import Reporter
from trainer.reporting.warnings import forwarded_warnings
from trainer.run import Run
from trainer.rundir import RunDirectory
from trainer.schedules import warnings_of
from trainer.stop import FINISH_SECONDS, StopRequest, signals_stop


def train(run: Run, directory: RunDirectory, config_text: str) -> float:
    """Train, and leave everything in ``directory``, ``config_text`` as its config.yaml; the test accuracy, on every
    rank. Raises ``StoppedError`` where a signal ended the run early."""
    reporter, accuracy = Reporter(run.rank.control), 0.0  # rank 0 knows better
    job = _job(run, directory, reporter)
    if run.rank.rank == 0:
        console = Console(directory.console)
        with forwarded_warnings(console.warning):
            accuracy = _train_and_write(run, job, directory, config_text, console)
    else:
        with forwarded_warnings(reporter.warn):
            state = _do_plan(run, job)
            reporter.close()
            if job.plan.stopped:
                _stopped(job)
            run.rank.control.gather(_on_cpu(state))
    accuracy = run.rank.control.agree("accuracy", lambda: accuracy)
    job.stop.obey()  # no rank before rank 0 has written everything
    return accuracy


def _job(run: Run, directory: RunDirectory, reporter: Reporter) -> Job:
    """What the engine is given."""
    rhythm = Rhythm(run.config["checkpoint"]["every_steps"], run.config["checkpoint"]["every_epochs"])

    def keeper(blocks: Sequence[Learner]) -> Keeper:
        run.start.release()  # they have their state
        run.network.release()
        return Keeper(blocks, run.plan, rhythm, directory.checkpoints, run.rank.rank, reporter)

    return Job(
        rank=run.rank,
        network=run.network,
        partition=run.partition,
        plan=run.plan,
        images=run.images,
        augment=run.augment,
        mix=run.mix,
        make_optimizer=run.make_optimizer,
        schedule=run.schedule,
        options=run.options,
        start=run.start,
        stop=StopRequest(),
        keeper=keeper,
        reporter=reporter,
        clock=Clock(run.rank.device, run.engine.sees_waits(run.rank.world_size)),
        log_every=run.config["log"]["every_steps"],
    )


def _train_and_write(run: Run, job: Job, directory: RunDirectory, config_text: str, console: Console) -> float:
    """What rank 0 does."""
    _describe(run, directory, config_text)
    with _board(run, job, directory, console) as board:
        notes = run.start.notes(None if run.engine.end_to_end else run.partition.cut_points)
        for note in [*notes, *warnings_of(run.schedule, run.plan.epochs)]:
            job.reporter.warn(note)
        state = _do_plan(run, job)
        job.reporter.close()
        epochs = board.finish()
        if not job.plan.stopped:
            parts = run.rank.control.gather(_on_cpu(state))
            assert parts is not None
            if not directory.config.is_file():
                _describe(run, directory, config_text)  # somebody has removed the directory meanwhile
            save_model(directory, parts, {"data": run.spec.to_json(), "cut_points": run.partition.cut_points})
            summary = summarize(epochs, run.facts(directory.path), min(LEFT_OUT_STEPS, run.plan.last_step))
            board.summarize(summary)
            return float(summary["test_accuracy"] or 0.0)
    return _stopped(job)


def _board(run: Run, job: Job, directory: RunDirectory, console: Console) -> Board:
    """Who hears of the run, and who takes the records that are no measurements."""

    def patience(failed: bool) -> float:
        """How long the tracker may take at the end."""
        return FINISH_SECONDS if failed or job.stop.signal is not None else CLOSE_SECONDS

    listeners = [console, Journal(directory.metrics), Background(run.tracker, patience)]
    identity = RunIdentity(dict(run.config), run.spec.to_json(), run.partition.to_json())
    keep = run.config["checkpoint"]["keep"]
    collector = Collector(directory.checkpoints, run.rank.world_size, keep, identity, run.tracker.identity)
    takers: dict[str, Taker] = {"checkpoint": collector.take, "stop": job.stop.take}
    facts = run.facts(directory.path)
    return Board(run.rank.control, listeners, facts, run.start.epochs, takers, job.reporter.fail)


def _describe(run: Run, directory: RunDirectory, config_text: str) -> None:
    """Write what the model can't be loaded without."""
    directory.path.mkdir(parents=True, exist_ok=True)
    write_text(directory.config, config_text)
    directory.write_json(directory.partition, run.partition.to_json())


def _do_plan(run: Run, job: Job) -> dict[str, Tensor]:
    """All steps and tests, or those until a signal asks for an end."""
    launched, is_first = run.rank.launch.by_torchrun, run.rank.rank == 0
    gc.enable()  # the entry has put it off
    forget_peak_memory(run.rank.device)
    with signals_stop(job.stop, job.reporter, is_first, launched):
        state = run.engine.train(job)
    if not job.plan.stopped:
        job.stop.put_off(launched)
    return state


def _stopped(job: Job) -> NoReturn:
    """Leave, once rank 0 gets here, with the manifest written and the listeners closed: a launcher ends all ranks when
    one has left."""
    job.rank.control.part()
    raise StoppedError.after(job.plan.last_step, job.stop.signal)


def save_model(directory: RunDirectory, parts: Iterable[Mapping[str, Tensor]], facts: Mapping[str, Any]) -> None:
    """Write the whole model, put together from what each rank has, to ``model.safetensors``; ``facts`` are what is
    needed beside config.yaml to build it again."""
    from safetensors.torch import save

    tensors = {name: tensor for part in parts for name, tensor in part.items()}
    content = save(tensors, metadata={"run": json.dumps(facts)})  # one entry: of several the order changes
    try:
        write_whole(directory.model, content)
    except OSError as error:
        raise SettingError(
            f"output_dir={directory.path}: model.safetensors could not be written: {error.strerror}; mend that and "
            f"start the run again, it goes on from its last checkpoint"
        ) from error


def _on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies, since a file of safetensors holds each name's own values where the model ties two of them."""
    dense = torch.contiguous_format
    return {name: tensor.detach().to("cpu", copy=True, memory_format=dense) for name, tensor in state.items()}
