"""Copies of a rank's training state on the host, taken without stopping the device."""

from collections.abc import Mapping

import torch
from torch import Tensor

from trainer.hostcopy import DeviceEvent


class Snapshot:
    """Buffers that are used again for every checkpoint."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}
        self._copied: DeviceEvent | None = None

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy ``tensors``; on CUDA the copies are queued behind the work so far. The copies are what they were at
        this moment, whatever the training does next."""
        device = torch.device("cpu")
        for name, tensor in tensors.items():
            buffer = self._buffers.get(name)
            if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
                buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
                self._buffers[name] = buffer
            buffer.copy_(tensor.detach(), non_blocking=True)
            device = tensor.device if tensor.is_cuda else device
        for name in self._buffers.keys() - tensors.keys():
            del self._buffers[name]
        self._copied = DeviceEvent(device)

    def wait(self) -> dict[str, Tensor]:
        """The copies, once they are there; valid until the next ``take``."""
        if self._copied is not None:
            self._copied.wait()
        return self._buffers
