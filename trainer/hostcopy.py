"""What passes between a device and its host without stopping either: copies, and moments to wait for."""

import math
import time
from datetime import timedelta

import torch
from torch import Tensor

POLL_SECONDS = 2e-4
"""How often the host looks whether the device has got somewhere."""


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on ``device``. On CUDA the copy is queued and the host goes on; from ordinary memory it would wait for
    all the work that is queued already."""
    if device.type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()  # torch keeps this memory until the copy is over
    return tensor.to(device, non_blocking=True)


class DeviceEvent:
    """A point in the work that is queued on a device, for the host to wait for. On the CPU it has passed at once.

    Make it on the training thread, ask for it on any.
    """

    def __init__(self, device: torch.device, timed: bool = False) -> None:
        """``timed`` is for ``seconds_since``."""
        self._device = device
        self._event: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._event = torch.cuda.Event(enable_timing=timed)
            self._event.record()

    def passed(self) -> bool:
        """Whether the device has got here."""
        if self._event is None:
            return True
        # To a new thread GPU 0 is the current one, and a question about another's event would open a context on it.
        with torch.cuda.device(self._device):
            return self._event.query()

    def wait(self, timeout: timedelta | None = None) -> None:
        """Return when the device has got here; signal handlers run meanwhile. Raises ``TimeoutError`` after
        ``timeout``."""
        end = math.inf if timeout is None else time.monotonic() + timeout.total_seconds()
        while not self.passed():
            if time.monotonic() > end:
                raise TimeoutError(f"the device did not get here within {timeout}")
            time.sleep(POLL_SECONDS)

    def seconds_since(self, earlier: "DeviceEvent") -> float:
        """On CUDA, the seconds from ``earlier`` to this moment by the device's clock; both must be ``timed`` and have
        passed."""
        assert self._event is not None and earlier._event is not None
        return earlier._event.elapsed_time(self._event) / 1e3


class HostCopy:
    """A small tensor on its way to the host.

    On CUDA the copy is queued behind the work that produces the tensor, and ``ready`` tells whether it has arrived;
    on the CPU it is there at once. Make it on the training thread, read it wherever convenient.
    """

    def __init__(self, tensor: Tensor, final: bool = False) -> None:
        """``tensor`` has no graph. ``final`` says that nobody will write to it any more: then one on the CPU needs no
        copy."""
        if tensor.is_cuda:
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
        else:
            self._host = tensor if final else tensor.clone()
        self._copied = DeviceEvent(tensor.device)

    def ready(self) -> bool:
        """Whether ``wait`` would return at once."""
        return self._copied.passed()

    def wait(self, timeout: timedelta | None = None) -> Tensor:
        """The values, on the CPU; waits for them where they have not arrived. Raises ``TimeoutError`` after
        ``timeout``."""
        self._copied.wait(timeout)
        return self._host
