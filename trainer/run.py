"""What a run is made of, from its settings: the ranks agree on data and partition here, and nothing is written yet."""

import platform
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainer.assemble import DATA_KEYS, augmentations, data_spec, label_mixes, load_images, make_network
from trainer.building import build, check_type, require_target
from trainer.checkpoint.start import Fresh, Start
from trainer.data.images import DataSpec, Pictures, tested_on
from trainer.engines.base import Engine, StepOptions
from trainer.errors import SettingError
from trainer.memory import memory_table
from trainer.optimizers import uncompiled
from trainer.optimizers.trial import try_out
from trainer.partition.partition import Partition
from trainer.partition.strategies import Chosen, Strategy, check_points
from trainer.plan import Plan, Share
from trainer.precision import DTYPES, autocast
from trainer.rank import Rank
from trainer.reporting.console import partition_table, summary_lines
from trainer.reporting.journal import last_summary
from trainer.reporting.listener import Tracker
from trainer.reporting.records import Record, RunFacts
from trainer.rundir import RunDirectory
from trainer.update import UpdateOptions

Config = Mapping[str, Any]
"""The resolved configuration as plain values."""

PARTITION_KEYS: dict[str, Any] = {"points": list[str | int | float] | None, "blocks": int | None}
"""Settings of the group ``partition`` that are not the strategy's own, and their types."""


class Run:
    """A run on one rank, after everything that can be wrong has been checked and before anything is written."""

    def __init__(self, config: Config, rank: Rank, start: Start | None = None) -> None:
        """Agree with the other ranks on data and partition, and build what they are made of; ``start`` is the state
        that the run begins with. Raises ``TrainerError`` for all that a person can mend."""
        self.start = start = start or Fresh()
        for group, shared in (("dataset", DATA_KEYS), ("partition", PARTITION_KEYS)):
            require_target(group, config[group])
            for key, hint in shared.items():
                check_type(f"{group}.{key}", config[group].get(key), hint)
        update, batch_size = UpdateOptions(**config["update"]), config["batch_size"]
        self.options = StepOptions(
            precision=config["precision"],
            compile=config["compile"],
            cuda_graphs=config["cuda_graphs"],
            skip_bad_steps=config["on_nan"] == "skip",
            update=update,
        )
        self.step_images = update.images_a_step(batch_size)
        self.engine: Engine = build("engine", config["engine"], offer={"batch_size": self.step_images})
        blocks = self.engine.blocks(rank.world_size)
        rank = replace(rank, replicas=self.engine.replicas(rank.world_size))
        self.engine.check(rank, self.options)
        if self.options.cuda_graphs and rank.device.type != "cuda":
            raise SettingError("cuda_graphs=true needs a GPU, and this run is on CPUs; set cuda_graphs=false")
        self.config, self.rank = config, rank
        self.schedule = build("scheduler", config["scheduler"])
        self.augment = augmentations(config["dataset"])
        self.mix = label_mixes(config["dataset"])
        self.tracker: Tracker = build("tracker", config["tracker"])
        self.tracker.resume(start.tracker)
        try_out(self.make_optimizer, nn.Parameter(torch.zeros(1, device=rank.device)))
        strategy: Strategy = build("partition", config["partition"], leave=PARTITION_KEYS)
        self.images: Pictures | None = load_images(config["dataset"]) if rank.rank == 0 else None
        self.spec = DataSpec.from_json(rank.control.agree("data", self._describe_data))
        if rank.replicas > 1:
            self._load_for_replicas()
        start.check(self.spec.to_json())
        self.network = make_network(
            config, self.spec, fetch=not start.has_weights, told=lambda find: rank.control.agree("features", find)
        )
        start.check_model(self.network.units)
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
        if start.done > self.plan.last_step:
            raise SettingError(
                f"the run goes on after step {start.done}, but its {config['epochs']} epochs end with step "
                f"{self.plan.last_step}; set epochs higher, or begin anew in another output_dir"
            )

    def make_optimizer(self, parameters: Any) -> torch.optim.Optimizer:
        """The optimizer of the settings, for parameters or groups of them."""
        return uncompiled.made(lambda: build("optimizer", self.config["optimizer"], offer={"params": parameters}))

    def _load_for_replicas(self) -> None:
        """Give every replica the images that rank 0 has. On another machine one rank begins, in case they are
        downloaded there. Raises ``SettingError``, on every rank, where some machine has others."""
        if self.images is None and self.rank.launch.local_rank == 0:
            self.images = load_images(self.config["dataset"])
        self.rank.control.share("images", True)
        if self.images is None and self.rank.first == self.rank.rank:
            self.images = load_images(self.config["dataset"])
        own = None if self.images is None else data_spec(self.config["dataset"], self.images)
        differs = self.rank.control.share("differs", platform.node() if own not in (None, self.spec) else None)
        if others := sorted({name for name in differs if name is not None}):
            raise SettingError(
                f"{', '.join(others)} has other images than rank 0; with data parallelism every machine must have the "
                f"same dataset"
            )

    def _describe_data(self) -> dict[str, Any]:
        assert self.images is not None
        spec = data_spec(self.config["dataset"], self.images)
        for augmentation in self.augment:
            augmentation(torch.zeros(1, *spec.image_shape, dtype=torch.uint8), torch.Generator())
        if self.config["batch_size"] > spec.train_size:
            raise SettingError(
                f"batch_size={self.config['batch_size']} is larger than the training data, which has "
                f"{spec.train_size} images"
            )
        return spec.to_json()

    def _choose_partition(self, strategy: Strategy, default_blocks: int) -> Partition:
        together = max(1, self.step_images // self.engine.parts(self.rank.world_size))
        try:
            with autocast(self.rank.device, DTYPES[self.options.precision]):  # for times that are measured
                chosen = self._choose(strategy, default_blocks)
                if together == 1 < self.step_images:
                    strategy.accept(chosen.cuts, chosen.how, self.network, together, self.rank.device)
        except ValueError as error:
            if together > 1:
                raise
            raise SettingError(
                f"batch_size={self.config['batch_size']} gives one image at a time, which is too few for the batch "
                f"norm of this model or local loss: {error}"
            ) from error
        return Partition.of(
            self.network, chosen, lambda seconds: self.engine.place(seconds, self.rank.replica_size)
        )

    def _choose(self, strategy: Strategy, default_blocks: int) -> Chosen:
        points, blocks = (self.config["partition"].get(key) for key in PARTITION_KEYS)
        network, images, device = self.network, self.step_images, self.rank.device
        if points is not None:
            cuts = check_points(points, network.names)
            if blocks is not None and blocks != len(cuts) + 1:
                raise SettingError(
                    f"partition.blocks={blocks} contradicts the {len(cuts)} cut points of partition.points; "
                    f"leave one of them out"
                )
            return strategy.accept(cuts, "explicit cut points", network, images, device)
        wanted = default_blocks if blocks is None else blocks
        free = blocks is None and not self.engine.end_to_end
        possible = range(self.rank.replica_size, len(network.names) + 1) if free else range(wanted, wanted + 1)
        kept = self.start.cut_points(possible)
        if kept is not None:
            return strategy.accept(kept, "as in the checkpoint", network, images, device)
        return strategy.choose(network, wanted, images, device)

    def describe(self) -> list[str]:
        """How the run executes, in sentences."""
        rank, spec = self.rank, self.spec
        threads = f"{rank.threads} thread{'s' if rank.threads > 1 else ''} a process"
        device = torch.cuda.get_device_name(rank.device) if rank.device.type == "cuda" else f"CPU, {threads}"
        shape = "x".join(str(size) for size in spec.image_shape)
        return [
            f"{self.engine.describe(rank, self.partition)}; {device}",
            f"{spec.train_size:,} training and {spec.test_size:,} {tested_on(self.config['dataset'])} images of "
            f"{shape}, {spec.num_classes} classes",
            self._describe_blocks(),
            *self.start.describe(),
        ]

    def _describe_blocks(self) -> str:
        if len(self.partition.blocks) > 1:
            return f"{len(self.partition.blocks)} blocks, {self.partition.how}"
        return "one block" if self.engine.end_to_end else "one block, so the model's own loss trains all of it"

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
                self.network, self.partition, self.plan.batch_size, self.options, self.make_optimizer,
                self.engine.queue_depth,
            )  # fmt: skip
        print("\n".join(lines))

    def finished(self, directory: RunDirectory) -> Record | None:
        """The summary of a run that has nothing left to do, where ``directory`` has one. Raises ``SettingError`` where
        it is that of other settings."""
        last = self.plan.last_step
        if self.start.done < last or not directory.model.is_file():
            return None
        summary = last_summary(directory.metrics)
        if summary is None or summary["steps"] != last:
            return None
        if changed := self.start.changed(self.partition.cut_points):
            raise SettingError(
                f"the run in output_dir={directory.path} has ended, and there is nothing left to train with "
                f"{', '.join(changed)}; give another output_dir"
            )
        return summary

    def show(self, summary: Record, directory: RunDirectory) -> None:
        """Print the result of a run that ended before."""
        print("\n".join(["this run has ended", *summary_lines(summary, self.facts(directory.path))]))
