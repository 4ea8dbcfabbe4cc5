"""How long a rank computes and how long it waits, in seconds, measured without stopping a GPU."""

import gc
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch

from trainer.hostcopy import DeviceEvent


class Mark(Protocol):
    """A moment; how a device keeps it is the device's business."""

    def since(self, earlier: "Mark") -> float:
        """Seconds from ``earlier`` to this moment; on CUDA waits until the device has passed it."""
        ...


@dataclass
class _HostMark:
    seconds: float

    def since(self, earlier: Mark) -> float:
        assert isinstance(earlier, _HostMark)
        return self.seconds - earlier.seconds


class _CudaMark(DeviceEvent):
    def since(self, earlier: Mark) -> float:
        assert isinstance(earlier, _CudaMark)
        self.wait()
        return self.seconds_since(earlier)


Wait = tuple[Mark, Mark]
"""From when to when somebody waited."""


@dataclass
class Lap:
    """A measured stretch of training: ``resolve`` gives its seconds once the device is past it. ``waits`` are those for
    a neighbor, None where nobody sees them, ``image_waits`` those for images."""

    begin: Mark
    end: Mark
    waits: list[Wait] | None
    image_waits: list[Wait]
    steps: int

    def resolve(self) -> dict[str, float | None]:
        """``seconds`` in all, of which ``busy_seconds`` computing and ``wait_seconds`` waiting (None where nobody
        knows), ``image_wait_seconds`` of the latter for images, and the number of ``steps`` they were spent on."""
        seconds, for_images = self.end.since(self.begin), _sum(self.image_waits)
        waited = None if self.waits is None else _sum(self.waits) + for_images
        return {
            "seconds": seconds,
            "busy_seconds": None if waited is None else seconds - waited,
            "wait_seconds": waited,
            "image_wait_seconds": for_images,
            "steps": self.steps,
        }


def _sum(waits: list[Wait]) -> float:
    return sum((end.since(begin) for begin, end in waits), 0.0)


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory that this process has had: on CUDA its tensors on the device, else all of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak_memory(device: torch.device) -> None:
    """Let ``peak_memory_bytes`` on CUDA be that of what follows, without what an earlier job of a sweep has left."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.reset_peak_memory_stats(device)


class Clock:
    """A rank's stopwatch. ``waiting`` brackets every place where the rank waits for another one, ``waiting_for_images``
    that where it waits for images to be read."""

    def __init__(self, device: torch.device, sees_waits: bool = True) -> None:
        """``sees_waits`` is False where a library does the waiting without telling."""
        self.device = device
        self._cuda = device.type == "cuda"
        self._sees_waits = sees_waits
        self.start()

    def mark(self) -> Mark:
        """Now; on CUDA the moment when the device gets here."""
        if not self._cuda:
            return _HostMark(time.perf_counter())
        return _CudaMark(self.device, timed=True)

    def start(self) -> None:
        """Begin a new lap."""
        self._waits: list[Wait] = []
        self._image_waits: list[Wait] = []
        self._begin = self.mark()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """What happens inside is waiting for another rank."""
        with self._waiting(self._waits):
            yield

    @contextmanager
    def waiting_for_images(self) -> Iterator[None]:
        """What happens inside is waiting for images to be read."""
        with self._waiting(self._image_waits):
            yield

    @contextmanager
    def _waiting(self, waits: list[Wait]) -> Iterator[None]:
        begin = self.mark()
        yield
        waits.append((begin, self.mark()))

    def lap(self, steps: int) -> Lap:
        """The lap since ``start``, in which ``steps`` steps were done."""
        return Lap(self._begin, self.mark(), self._waits if self._sees_waits else None, self._image_waits, steps)
