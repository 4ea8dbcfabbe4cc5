"""Copies between a device and its host that stop neither."""

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on ``device``. On CUDA the copy is queued and the host goes on; from ordinary memory it would wait for
    all the work that is queued already."""
    if device.type == "cuda" and not tensor.is_cuda:
        tensor = tensor.pin_memory()  # torch keeps this memory until the copy is over
    return tensor.to(device, non_blocking=True)


class HostCopy:
    """A small tensor on its way to the host.

    On CUDA the copy is queued behind the work that produces the tensor, and ``ready`` tells whether it has arrived;
    on the CPU it is there at once. Make it on the training thread, read it wherever convenient.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        tensor = tensor.detach()
        if tensor.is_cuda:
            self._host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()
        else:
            self._host = tensor.clone()

    def ready(self) -> bool:
        """Whether ``wait`` would return at once."""
        return self._event is None or self._event.query()

    def wait(self) -> Tensor:
        """The values, on the CPU; waits for them where they have not arrived."""
        if self._event is not None:
            self._event.synchronize()
        return self._host
