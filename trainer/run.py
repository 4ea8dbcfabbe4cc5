"""One run, from its settings to its files: everything is agreed on, built, trained and written here."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainer.assemble import augmentations, data_spec, label_mixes, load_images, make_network
from trainer.checkpoint.collector import Collector, RunIdentity
from trainer.checkpoint.keeper import Keeper, Rhythm
from trainer.checkpoint.start import Fresh, Start
from trainer.checkpoint.state import Kept
from trainer.clock import Clock
from trainer.data.images import DataSpec, Pictures
from trainer.engines.base import Engine, Job, StepOptions
from trainer.errors import SettingError, StoppedError
from trainer.files import write_text, write_whole
from trainer.memory import memory_table
from trainer.partition.partition import Partition
from trainer.partition.strategies import Chosen, Strategy, check_points
from trainer.plan import Plan, Share
from trainer.rank import Rank
from trainer.reporting.background import Background
from trainer.reporting.board import Board, Taker, summarise
from trainer.reporting.console import Console, partition_table, summary_lines
from trainer.reporting.journal import Journal, last_summary
from trainer.reporting.measure import LEFT_OUT_STEPS
from trainer.reporting.records import Listener, Record, RunFacts, Tracker
from trainer.reporting.reporter import Reporter
from trainer.reporting.warnings import forwarded_warnings
from trainer.rundir import RunDirectory
from trainer.settings import build
from trainer.stop import StopRequest, signals_stop
from trainer.update import UpdateOptions

Config = Mapping[str, Any]
"""The resolved configuration as plain values."""

PARTITION_KEYS = ("points", "blocks")
"""Settings of the group ``partition`` that are not the strategy's own."""


class Run:
    """A run on one rank, after everything that can be wrong has been checked and before anything is written."""

    def __init__(self, config: Config, rank: Rank, start: Start | None = None) -> None:
        """Agree with the other ranks on data and partition, and build what they are made of; ``start`` is the state
        that the run begins with. Raises ``TrainerError`` for all that a person can mend."""
        self.start = start = start or Fresh()
        update, batch_size = UpdateOptions(**config["update"]), config["batch_size"]
        self.options = StepOptions(config["precision"], config["compile"], config["on_nan"] == "skip", update)
        self.step_images = update.images_a_step(batch_size)
        self.engine: Engine = build("engine", config["engine"], offer={"batch_size": self.step_images})
        blocks = self.engine.blocks(rank.world_size)
        rank = replace(rank, replicas=self.engine.replicas(rank.world_size))
        self.engine.check(rank, self.options)
        self.config, self.rank = config, rank
        self._schedule = build("scheduler", config["scheduler"])
        self._augment = augmentations(config["dataset"])
        self._mix = label_mixes(config["dataset"])
        self._tracker: Tracker = build("tracker", config["tracker"])
        self._tracker.go_on(start.tracker)
        self._make_optimizer([nn.Parameter(torch.zeros(1))])  # so that a wrong setting is found now
        strategy: Strategy = build("partition", config["partition"], leave=PARTITION_KEYS)
        self._images: Pictures | None = load_images(config["dataset"]) if rank.rank == 0 else None
        self.spec = DataSpec.from_json(rank.control.agree("data", self._describe_data))
        if self._images is None and rank.first == rank.rank:
            self._images = load_images(config["dataset"])  # not before rank 0 has it, in case it is downloaded
        start.check(config, self.spec.to_json())
        self.network = make_network(config, self.spec)
        if self.engine.end_to_end:
            self.network = self.network.end_to_end()
        self.partition = Partition.from_json(
            rank.control.agree("partition", lambda: self._choose_partition(strategy, blocks).to_json())
        )
        self.plan = Plan(
            self.spec.train_size - self.spec.train_size % batch_size,  # whole updates only
            self.spec.test_size,
            self.step_images,
            config["epochs"],
            config["max_steps"],
            config["eval"]["every_epochs"],
            start.done,
            share=Share(rank.replica, rank.replicas),
        )

    def _make_optimizer(self, parameters: Any) -> torch.optim.Optimizer:
        optimizer: torch.optim.Optimizer = build("optimizer", self.config["optimizer"], offer={"params": parameters})
        return optimizer

    def _describe_data(self) -> dict[str, Any]:
        assert self._images is not None
        spec = data_spec(self.config["dataset"], self._images)
        if self.config["batch_size"] > spec.train_size:
            raise SettingError(
                f"batch_size={self.config['batch_size']} is larger than the training data, which has "
                f"{spec.train_size} images"
            )
        return spec.to_json()

    def _choose_partition(self, strategy: Strategy, default_blocks: int) -> Partition:
        points, blocks = (self.config["partition"].get(key) for key in PARTITION_KEYS)
        network, images, device = self.network, self.step_images, self.rank.device
        if points is not None:
            cuts = check_points(points, network.names)
            if blocks is not None and blocks != len(cuts) + 1:
                raise SettingError(
                    f"partition.blocks={blocks} contradicts the {len(cuts)} cut points of partition.points; "
                    f"leave one of them out"
                )
            chosen = Chosen(cuts, strategy.costs(network, images, device), "explicit cut points")
        else:
            wanted = default_blocks if blocks is None else blocks
            kept = self.start.cut_points(self.config["partition"], wanted)
            if kept is not None:
                chosen = Chosen(kept, strategy.costs(network, images, device), "as in the checkpoint")
            else:
                chosen = strategy.choose(network, wanted, images, device)
        ranks = self.rank.world_size // self.rank.replicas
        return Partition.of(network, chosen, lambda seconds: self.engine.place(seconds, ranks))

    def describe(self) -> list[str]:
        """How the run executes, in sentences."""
        rank, spec = self.rank, self.spec
        threads = f"{rank.threads} thread{'s' if rank.threads > 1 else ''} a process"
        device = torch.cuda.get_device_name(rank.device) if rank.device.type == "cuda" else f"CPU, {threads}"
        shape = "x".join(str(size) for size in spec.image_shape)
        tested = "validation" if self.config["dataset"].get("validation") else "test"
        return [
            f"{self.engine.describe(rank, self.partition)}; {device}",
            f"{spec.train_size:,} training and {spec.test_size:,} {tested} images of {shape}, "
            f"{spec.num_classes} classes",
            f"{len(self.partition.blocks)} blocks, {self.partition.how}",
            *self.start.describe(),
        ]

    def facts(self, directory: Path) -> RunFacts:
        """What the listeners are told."""
        note = ""
        if self.rank.shares_cores:
            shared = "GPUs" if self.rank.device.type == "cuda" else "cores"
            note = f"the ranks share {shared}, their speeds are not their own"
        plan = self.plan
        return RunFacts(
            directory,
            dict(self.config),
            self.partition,
            [] if self.engine.end_to_end else self.partition.cut_points,
            self.rank.world_size,
            self.step_images,
            plan.epochs,
            plan.steps_per_epoch,
            plan.last_step,
            self.describe(),
            note,
        )

    def preview(self) -> None:
        """Print the partition, the packets' bytes and the memory of each rank."""
        lines = [*self.describe(), "", *partition_table(self.partition), ""]
        if self.engine.end_to_end and self.partition.cut_points:
            lines.append("what an ordinary pipeline keeps in memory depends on its schedule and is not estimated")
        else:
            lines += memory_table(
                self.network, self.partition, self.step_images, self.options.precision,
                self._make_optimizer, self.engine.queue_depth,
            )  # fmt: skip
        print("\n".join(lines))

    def finished(self, directory: RunDirectory) -> Record | None:
        """The summary of a run that has nothing left to do, where ``directory`` has one."""
        last = self.plan.last_step
        if self.start.done < last or not directory.model.is_file():
            return None
        summary = last_summary(directory.metrics)
        return summary if summary is not None and summary["steps"] == last else None

    def show(self, summary: Record, directory: RunDirectory) -> None:
        """Print the result of a run that ended before."""
        print("\n".join(["this run has ended", *summary_lines(summary, self.facts(directory.path))]))

    def train(self, directory: RunDirectory, config_text: str) -> float:
        """Train, and leave everything in ``directory``; the test accuracy on rank 0, 0.0 elsewhere. Raises
        ``StoppedError`` where a signal ended the run early."""
        rank = self.rank
        reporter = Reporter(rank.control)
        rhythm = Rhythm(self.config["checkpoint"]["every_steps"], self.config["checkpoint"]["every_epochs"])

        def keeper(blocks: Sequence[Kept]) -> Keeper:
            return Keeper(blocks, self.plan, rhythm, directory.checkpoints, rank.rank, reporter)

        job = Job(
            rank, self.network, self.partition, self.plan, self._images, self._augment, self._mix,
            self._make_optimizer, self._schedule, self.options, self.start, StopRequest(), keeper, reporter,
            Clock(rank.device), self.config["log"]["every_steps"],
        )  # fmt: skip
        if rank.rank == 0:
            console = Console(directory.console)
            with forwarded_warnings(console.warning):
                return self._train_and_write(job, directory, config_text, console)
        with forwarded_warnings(reporter.warn):
            state = self._do_plan(job)
            reporter.close()
            self._end_where_stopped(job.stop)
            rank.control.gather(_on_cpu(state))
            return 0.0

    def _train_and_write(self, job: Job, directory: RunDirectory, config_text: str, console: Console) -> float:
        """What rank 0 does."""
        write_text(directory.config, config_text)
        directory.write_json(directory.partition, self.partition.to_json())
        facts = self.facts(directory.path)
        listeners: list[Listener] = [console, Journal(directory.metrics), Background(self._tracker)]
        identity = RunIdentity(dict(self.config), self.spec.to_json(), self.partition.to_json())
        collector = Collector(
            directory.checkpoints, self.rank.world_size, self.config["checkpoint"]["keep"], identity,
            self._tracker.identity,
        )  # fmt: skip
        takers: dict[str, Taker] = {"checkpoint": collector.take, "stop": job.stop.take}
        board = Board(self.rank.control, listeners, facts, self.start.epochs, takers, job.reporter.fail)
        try:
            for note in self.start.notes(None if self.engine.end_to_end else self.partition.cut_points):
                job.reporter.warn(note)
            state = self._do_plan(job)
            job.reporter.close()
            epochs = board.finish()
            self._end_where_stopped(job.stop)
            parts = self.rank.control.gather(_on_cpu(state))
            assert parts is not None
            save_model(directory, parts, {"data": self.spec.to_json(), "cut_points": self.partition.cut_points})
            left_out = min(LEFT_OUT_STEPS, self.plan.last_step)
            summary = summarise(epochs, facts, left_out)
            board.summarise(summary)
            return float(summary["test_accuracy"] or 0.0)
        finally:
            board.close()

    def _do_plan(self, job: Job) -> dict[str, Tensor]:
        """All steps and tests, or those until a signal asks for an end."""
        launched = self.rank.launch.by_torchrun
        with signals_stop(job.stop, job.reporter, self.rank.rank == 0, launched, lambda: self.plan.stopped):
            return self.engine.train(job)

    def _end_where_stopped(self, stop: StopRequest) -> None:
        if self.plan.stopped:
            # Rank 0 gets here with the manifest written. No rank leaves before: the launcher would then end rank 0.
            self.rank.control.agree("stopped", lambda: True)
            raise StoppedError.after(self.plan.last_step, stop.signal)


def save_model(directory: RunDirectory, parts: Iterable[Mapping[str, Tensor]], facts: Mapping[str, Any]) -> None:
    """Write the whole model, put together from what each rank has, to ``model.safetensors``; ``facts`` are what is
    needed beside config.yaml to build it again."""
    from safetensors.torch import save

    tensors = {name: tensor for part in parts for name, tensor in part.items()}
    content = save(tensors, metadata={"format": "pt", "run": json.dumps(facts)})
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
