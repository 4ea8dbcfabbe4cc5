"""Buffers that send or receive one packet at a time.

A slot owns its buffer and the work under way on it, together: a work that is dropped cancels a gloo transfer, and a
buffer that is written before its send has completed changes what arrives. ``Direct`` slots hand the buffer itself to
the process group, NCCL's at once and gloo's, for a send, from a thread (``ThreadedSend``); ``Staged`` slots go through
pinned host memory, for ranks that share a GPU, which NCCL refuses.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.hostcopy import DeviceEvent


class SendSlot(Protocol):
    """One place in a send queue."""

    buffer: Tensor

    def send(self) -> None:
        """Start sending the buffer, as it is after the work queued so far on the current stream."""
        ...

    def wait(self) -> None:
        """Return when the buffer may be written again (on CUDA: by work queued from now on)."""
        ...


class ReceiveSlot(Protocol):
    """One posted receive."""

    buffer: Tensor

    def post(self) -> None:
        """Start receiving into the buffer, after the work queued so far on the current stream."""
        ...

    def wait(self) -> None:
        """Return when the buffer holds the message (on CUDA: for work queued from now on)."""
        ...


class DirectSend:
    """A send slot whose buffer the process group reads itself."""

    def __init__(self, buffer: Tensor, peer: int, group: dist.ProcessGroup) -> None:
        self.buffer = buffer
        self._peer, self._group = peer, group
        self._work: dist.Work | None = None

    def send(self) -> None:
        """Start the send."""
        self._work = dist.isend(self.buffer, self._peer, self._group)

    def wait(self) -> None:
        """Wait for the send started last, if any."""
        if self._work is not None:
            self._work.wait()
            self._work = None


class DirectReceive:
    """A receive slot whose buffer the process group writes itself."""

    def __init__(self, buffer: Tensor, peer: int, group: dist.ProcessGroup) -> None:
        self.buffer = buffer
        self._peer, self._group = peer, group
        self._work: dist.Work | None = None

    def post(self) -> None:
        """Start the receive."""
        self._work = dist.irecv(self.buffer, self._peer, self._group)

    def wait(self) -> None:
        """Wait for the receive that was posted."""
        assert self._work is not None, "a receive is waited for that was never posted"
        self._work.wait()
        self._work = None


class ThreadedSend:
    """A send slot whose send is started by a thread: gloo writes into the socket, as much as that takes, before an
    ``isend`` returns. The slots of an edge share the thread, which keeps their order."""

    def __init__(self, direct: DirectSend, thread: ThreadPoolExecutor) -> None:
        self.buffer = direct.buffer
        self._direct, self._thread = direct, thread
        self._started: Future[None] | None = None

    def send(self) -> None:
        """Leave the send to the thread."""
        self._started = self._thread.submit(self._direct.send)

    def wait(self) -> None:
        """Wait for the send started last, if any."""
        if self._started is not None:
            self._started.result()
            self._started = None
            self._direct.wait()


class StagedSend(ThreadedSend):
    """A send slot that copies to host memory; the thread starts the send from there once the copy has arrived, so that
    the training thread goes on to the backward."""

    def __init__(self, buffer: Tensor, from_host: DirectSend, thread: ThreadPoolExecutor) -> None:
        super().__init__(from_host, thread)
        self.buffer = buffer

    def send(self) -> None:
        """Queue the copy to the host and leave the rest to the thread."""
        self._direct.buffer.copy_(self.buffer, non_blocking=True)
        self._started = self._thread.submit(self._send_when, DeviceEvent(self.buffer.device))

    def _send_when(self, copied: DeviceEvent) -> None:
        copied.wait()
        self._direct.send()


class StagedReceive:
    """A receive slot that receives into host memory and copies to the device when waited for."""

    def __init__(self, buffer: Tensor, to_host: DirectReceive) -> None:
        self.buffer = buffer
        self._direct = to_host
        self._copied: DeviceEvent | None = None

    def post(self) -> None:
        """Start the receive; the host buffer's earlier copy to the device has to be over first."""
        if self._copied is not None:
            self._copied.wait()
        self._direct.post()

    def wait(self) -> None:
        """Wait for the message and queue its copy to the device."""
        self._direct.wait()
        self.buffer.copy_(self._direct.buffer, non_blocking=True)
        self._copied = DeviceEvent(self.buffer.device)


def send_slots(
    count: int, nbytes: int, device: torch.device, peer: int, group: dist.ProcessGroup, staged: bool
) -> list[SendSlot]:
    """The slots of the send queue of one edge."""
    buffers = [torch.zeros(nbytes, dtype=torch.uint8, device=device) for _ in range(count)]
    if device.type == "cuda" and not staged:
        return [DirectSend(buffer, peer, group) for buffer in buffers]
    thread = ThreadPoolExecutor(1, thread_name_prefix="send")
    if not staged:
        return [ThreadedSend(DirectSend(buffer, peer, group), thread) for buffer in buffers]
    return [StagedSend(buffer, DirectSend(_in_host_memory(buffer), peer, group), thread) for buffer in buffers]


def receive_slots(
    count: int, nbytes: int, device: torch.device, peer: int, group: dist.ProcessGroup, staged: bool
) -> list[ReceiveSlot]:
    """The slots that one edge receives into."""
    buffers = [torch.zeros(nbytes, dtype=torch.uint8, device=device) for _ in range(count)]
    if not staged:
        return [DirectReceive(buffer, peer, group) for buffer in buffers]
    return [StagedReceive(buffer, DirectReceive(_in_host_memory(buffer), peer, group)) for buffer in buffers]


def _in_host_memory(buffer: Tensor) -> Tensor:
    """A buffer of the same size for copies from and to ``buffer``, pinned where that is on a GPU."""
    return torch.zeros(len(buffer), dtype=torch.uint8, pin_memory=buffer.is_cuda)
