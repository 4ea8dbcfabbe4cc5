"""Rank 0's view of the whole run: it puts the records of all ranks together and tells the listeners.

Ranks are at different steps at the same moment, so the parts of one step or epoch arrive one after another; a record
goes out when its last part is there, and records go out in order.
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from trainer.data.images import tested_on
from trainer.meter import LOSS, RIGHT, SEEN
from trainer.reporting.listener import Listener
from trainer.reporting.records import Record, RunFacts
from trainer.transport.control import Control

Taker = Callable[[Record, Sequence[Record]], str | None]
"""Takes a record and those of the epochs so far, and may give a warning."""


RANK_KEYS = ("busy_seconds", "wait_seconds", "image_wait_seconds", "steps", "peak_memory_bytes")
"""What an epoch's record says of each rank."""


class Board:
    """Collects on a thread of its own until every rank has said that nothing follows."""

    def __init__(
        self, control: Control, listeners: Sequence[Listener], run: RunFacts, epochs: Sequence[Record] = (),
        takers: Mapping[str, Taker] | None = None, failed: Callable[[Exception], None] = lambda error: None,
    ) -> None:  # fmt: skip
        """Tells the listeners that the run starts, on the thread: a slow one never delays training. ``epochs`` are the
        records of the epochs before; ``takers`` get the records that are no measurements, by their kind; ``failed`` is
        told of the error that ends the thread, after which nothing is collected any more."""
        self._control = control.clone()
        self._listeners, self._run = listeners, run
        self._parts: dict[tuple[str, int], dict[int, Record]] = defaultdict(dict)
        self._epochs: list[Record] = [*epochs]
        self._takers = dict(takers or {})
        self._failing: list[Listener] = []
        self._failed = failed
        self._error: Exception | None = None
        self._open = set(range(control.world_size))
        self._thread = threading.Thread(target=self._collect, name="board", daemon=True)
        self._thread.start()

    def finish(self) -> list[Record]:
        """Wait until every rank has reported everything; the epochs' records in order."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._epochs

    def summarize(self, record: Record) -> None:
        """Tell the listeners how the run ended."""
        self._tell(lambda listener: listener.summary(record))

    def __enter__(self) -> "Board":
        """Closes at the end, as failed where an error leads there."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self.close(kind is not None)

    def close(self, failed: bool) -> None:
        """Close the listeners, the first one last: it is the console, and the others may have something to say."""
        self._tell(lambda listener: listener.close(failed), reversed(self._listeners))

    def _collect(self) -> None:
        try:
            self._tell(lambda listener: listener.start(self._run))
            for record in self._control.records():
                self._take(record)
                if not self._open:
                    return
        except Exception as error:  # finish() raises it, unless training does before
            self._error = error
            self._failed(error)

    def _take(self, record: Record) -> None:
        rank, kind = record.pop("rank"), record.pop("kind")
        if kind == "end":
            self._open.discard(rank)
        elif kind == "warning":
            self._warn(f"rank {rank}: {record['text']}")
        elif kind in self._takers:
            if (warning := self._takers[kind](record, self._epochs)) is not None:
                self._warn(warning)
        else:
            parts = self._parts[kind, record["step"]]
            parts[rank] = record
            if len(parts) == self._control.world_size:
                del self._parts[kind, record["step"]]
                self._publish(kind, [parts[r] for r in sorted(parts)])

    def _warn(self, text: str) -> None:
        self._tell(lambda listener: listener.warning(text))

    def _tell(self, tell: Callable[[Listener], None], order: Iterable[Listener] | None = None) -> None:
        """Tell every listener. What one of them raises is said once and concerns nobody else. It is told the next thing
        all the same: a disk that was full may have room again."""
        for listener in order or self._listeners:
            try:
                tell(listener)
            except Exception as error:
                if listener not in self._failing:
                    self._failing.append(listener)
                    self._warn(f"{type(listener).__name__} failed: {type(error).__name__}: {error}; training goes on")

    def _publish(self, kind: str, parts: list[Record]) -> None:
        record: Record = {"kind": kind, "step": parts[0]["step"], "epoch": parts[0]["epoch"]}
        if kind == "step":
            record["images_per_second"] = _rate(parts[-1]["lap"], self._run.step_images)
            record["blocks"] = _step(parts)
            self._tell(lambda listener: listener.step(record))
            return
        record |= _epoch(parts, self._run.step_images)
        self._epochs.append(record)
        self._tell(lambda listener: listener.epoch(record))


def _learners(parts: Sequence[Record]) -> list[list[tuple[Record, Record]]]:
    """For every learner in order, what the ranks that have a copy of it say of it, each with the rank's lap."""
    indices = sorted({int(index) for part in parts for index in part["blocks"]})
    return [
        [(part["blocks"][str(index)], part["lap"]) for part in parts if str(index) in part["blocks"]]
        for index in indices
    ]


def _mean(sums: Iterable[Mapping[str, float]]) -> Record:
    """Mean loss, accuracy (0 to 1) and mean of each of the loss's terms, of what was summed in several places; None
    where nothing was, as where all steps were skipped."""
    copies = list(sums)
    total = {name: sum(copy[name] for copy in copies) for name in copies[0]}
    seen = total.pop(SEEN)
    means = {name: value / seen if seen else None for name, value in total.items()}
    return {LOSS: means.pop(LOSS), "accuracy": means.pop(RIGHT), **means}


def _rate(lap: Record, step_images: int) -> float | None:
    """Images per second in a lap; of the last rank, that is completions."""
    return lap["steps"] * step_images / lap["seconds"] if lap["steps"] else None


def _step(parts: Sequence[Record]) -> list[Record]:
    """A step's records, one a learner."""
    blocks = []
    for copies in _learners(parts):
        record = _mean(copy["train"] for copy, _ in copies)
        record["learning_rate"] = copies[0][0]["learning_rate"]
        busy, seconds = copies[0][1]["busy_seconds"], copies[0][1]["seconds"]
        record["busy"] = None if busy is None else round(busy / seconds, 4) if seconds else 0.0
        blocks.append(record)
    return blocks


def _epoch(parts: Sequence[Record], step_images: int) -> Record:
    """An epoch's record of its parts. A lap covers an epoch's steps but those left out at the beginning of the run."""
    learners = _learners(parts)
    record: Record = {"train": {"blocks": [_mean(copy["train"] for copy, _ in copies) for copies in learners]}}
    if learners[0][0][0]["test"] is not None:
        tested = [_mean(copy["test"] for copy, _ in copies) for copies in learners]
        record["test"] = {"blocks": tested, "accuracy": tested[-1]["accuracy"]}
    laps = [part["lap"] for part in parts]
    last = laps[-1]
    record["images_per_second"] = _rate(last, step_images)
    record["measured_steps"] = last["steps"]
    record["measured_seconds"] = last["seconds"]
    record["ranks"] = [{key: lap[key] for key in RANK_KEYS} for lap in laps]
    return record


def _busy_share(laps: Sequence[Record]) -> float | None:
    """The share of its time that a rank computes, over several laps; None where nobody sees it wait."""
    if any(lap["busy_seconds"] is None for lap in laps):
        return None
    busy = sum(lap["busy_seconds"] for lap in laps)
    seconds = busy + sum(lap["wait_seconds"] for lap in laps)
    return busy / seconds if seconds else 0.0


def summarize(epochs: Sequence[Record], run: RunFacts, left_out_steps: int) -> Record:
    """The summary of a run's epochs."""
    tested = [epoch["test"]["accuracy"] for epoch in epochs if "test" in epoch]
    ranks = len(epochs[-1]["ranks"])
    alike = [epoch for epoch in epochs if len(epoch["ranks"]) == ranks]  # a resumed run may have had others before
    steps = sum(epoch["measured_steps"] for epoch in alike)
    seconds = sum(epoch["measured_seconds"] for epoch in alike)
    waited = [sum(epoch["ranks"][rank]["image_wait_seconds"] for epoch in alike) for rank in range(ranks)]
    shares = [_busy_share([epoch["ranks"][rank] for epoch in alike]) for rank in range(ranks)]
    known = [share for share in shares if share is not None]
    note = run.speed_note or ("" if len(known) == ranks else "the engine does not see how long its ranks wait")
    return {
        "kind": "summary",
        "steps": epochs[-1]["step"],
        "epochs": epochs[-1]["epoch"],
        "tested_on": tested_on(run.config["dataset"]),
        "test_accuracy": tested[-1] if tested else None,
        "best_test_accuracy": max(tested, default=None),
        "exit_accuracies": [block["accuracy"] for block in epochs[-1]["test"]["blocks"]]
        if "test" in epochs[-1]
        else None,
        "images_per_second": steps * run.step_images / seconds if steps else None,
        "left_out_steps": left_out_steps,
        "pipeline_efficiency": None if note or not steps else max(known),
        "image_wait": max(waited) / seconds if steps else None,
        "note": note,
        "cut_points": list(run.exits),
    }
