"""Weights & Biases: one run, written by rank 0, with every block's metrics.

The blocks of a pipeline are never at the same step at one moment, so the step is a metric of its own and the axis of
the others; W&B's internal counter is not used.
"""

import logging
import os
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from trainer.errors import SettingError
from trainer.reporting.listener import Tracker
from trainer.reporting.records import Record, RunFacts

MODES = ("auto", "online", "offline", "disabled")

RANK_KEYS = ("busy_seconds", "wait_seconds", "image_wait_seconds")
"""What is logged of each rank."""

INIT_SECONDS = 30
"""How long W&B may take to answer at the start."""

ID_LENGTH = 16

log = logging.getLogger(__name__)


class WandbTracker(Tracker):
    """Logs ``block0/loss`` and so on; whatever W&B does, training goes on."""

    def __init__(
        self,
        project: str,
        mode: str = "auto",
        name: str | None = None,
        group: str | None = None,
        entity: str | None = None,
        tags: list[str] | None = None,
    ) -> None:
        """``mode`` is ``online``, ``offline``, ``disabled`` or ``auto``, which is online where an API key is
        configured."""
        if mode not in MODES:
            raise SettingError(f"tracker.mode={mode} is unknown; it is {', '.join(MODES)}, or choose tracker=none")
        self._mode = mode
        self._options: dict[str, Any] = {
            "project": project,
            "name": name,
            "group": group,
            "entity": entity,
            "tags": tags,
        }
        self._run: Any = None
        # Made here and not by W&B, which may answer only after the first checkpoint.
        self._id: str = os.environ.get("WANDB_RUN_ID") or uuid.uuid4().hex[:ID_LENGTH]

    def identity(self) -> dict[str, Any]:
        """W&B's id of the run."""
        return {"wandb_id": self._id}

    def resume(self, identity: Mapping[str, Any]) -> None:
        """Take the id of the run that is resumed, if it has one."""
        self._id = identity.get("wandb_id", self._id)

    def start(self, run: RunFacts) -> None:
        """Open the W&B run."""
        self._attempt(lambda: self._open(run))

    def _open(self, run: RunFacts) -> None:
        import wandb

        os.environ.setdefault("WANDB_SILENT", "true")
        mode: Any = self._mode
        if mode == "auto":
            mode = "online" if _has_key() else "offline"
        self._run = wandb.init(
            **self._options,
            dir=str(run.directory),
            mode=mode,
            id=self._id,
            resume="allow" if mode == "online" else None,
            config={**run.config, "partition_used": run.partition.to_json()},
            settings=wandb.Settings(init_timeout=INIT_SECONDS, console="off"),
        )
        self._run.define_metric("step")
        self._run.define_metric("epoch")
        for index in range(len(run.exits) + 1):
            self._run.define_metric(f"block{index}/*", step_metric="step")
        for prefix in ("test", "rank", "pipeline"):
            self._run.define_metric(f"{prefix}/*", step_metric="epoch")

    def step(self, record: Record) -> None:
        """Loss, accuracy, learning rate and busy share of each block."""
        values: dict[str, Any] = {"step": record["step"]}
        for index, block in enumerate(record["blocks"]):
            values |= {f"block{index}/{name}": value for name, value in block.items()}
        self._log(values)

    def epoch(self, record: Record) -> None:
        """Test accuracy of every exit, speed, and the ranks' busy and waiting time."""
        values: dict[str, Any] = {"epoch": record["epoch"], "step": record["step"]}
        if "test" in record:
            values["test/accuracy"] = record["test"]["accuracy"]
            for index, block in enumerate(record["test"]["blocks"]):
                values |= {f"block{index}/test_{name}": value for name, value in block.items()}
        for index, rank in enumerate(record["ranks"]):
            values |= {f"rank/{index}_{name}": rank[name] for name in RANK_KEYS}
        if record["images_per_second"]:
            values["pipeline/images_per_second"] = record["images_per_second"]
        self._log(values)

    def summary(self, record: Record) -> None:
        """The run's result."""
        if self._run is not None:
            plain = {key: value for key, value in record.items() if isinstance(value, int | float)}
            self._attempt(lambda: self._run.summary.update(plain))

    def close(self, failed: bool) -> None:
        """Finish the W&B run, as failed where it did."""
        if self._run is not None:
            self._attempt(lambda: self._run.finish(exit_code=int(failed)))

    def _log(self, values: dict[str, Any]) -> None:
        if self._run is not None:
            known = {name: value for name, value in values.items() if value is not None}
            self._attempt(lambda: self._run.log(known))

    def _attempt(self, action: Callable[[], Any]) -> None:
        """Do something with W&B; a failure ends the tracking, never the training."""
        try:
            action()
        except Exception as error:  # whatever W&B raises
            log.warning("W&B failed, the run goes on without it: %s: %s", type(error).__name__, error)
            self._run = None


def _has_key() -> bool:
    """Whether an API key is configured, in the environment or in the netrc file; never asks for one."""
    import wandb

    return bool(wandb.login(prompt=False, verify=False))
