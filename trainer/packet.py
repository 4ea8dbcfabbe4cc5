"""Packets: what crosses from one block to the next for one mini-batch.

A packet is an ordered list of named fields, the header first. Between ranks it is *one* message: a flat byte buffer
with a typed view for each field. Fields are declared before the first step, so a local loss that needs one more thing
(the image, say) declares a field and nothing else changes.
"""

import hashlib
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import torch
from torch import Tensor

ALIGNMENT = 256
"""Every field starts at a multiple of this many bytes: CUDA's libraries choose kernels by the alignment of what they
read, up to so many bytes, and must not choose otherwise for a packet than for the same tensors in one process."""

OPEN_END = -1
"""The header's ``last_step`` while no early end has been decided."""


class Kind(IntEnum):
    """What a packet is for."""

    TRAIN = 0
    TEST = 1


@dataclass(frozen=True)
class Tag:
    """Which mini-batch a packet carries: the step number (of the run in training, of the pass in a test, both from 1)
    and how many of its samples are valid (fewer than the packet holds only in the last batch of a test)."""

    kind: Kind
    step: int
    count: int

    def valid(self, batch: Tensor) -> Tensor:
        """The valid samples of ``(N, ...)``. Where all are, ``batch`` itself: the gradient of a slice is a copy."""
        return batch if batch.shape[0] == self.count else batch[: self.count]


@dataclass(frozen=True)
class Field:
    """One tensor of a packet; the first axis of ``shape`` is the sample, ``(N, ...)``."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Size in bytes, without padding."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    @property
    def memory_format(self) -> torch.memory_format:
        """Images and feature maps are kept channels-last, what convolutions are fastest on; all else is row-major.
        Either way the field is one dense range of bytes."""
        return torch.channels_last if len(self.shape) == 4 else torch.contiguous_format

    def view(self, buffer: Tensor) -> Tensor:
        """This field's tensor over ``buffer``, a uint8 tensor of exactly ``nbytes`` bytes."""
        flat = buffer.view(self.dtype)
        if self.memory_format is torch.channels_last:
            n, c, h, w = self.shape
            return flat.view(n, h, w, c).permute(0, 3, 1, 2)
        return flat.view(self.shape)


HEADER = Field("header", (8,), torch.int64)
"""What a packet says of itself. It is made with the images and goes from block to block like their labels: on CUDA from
device to device, so that its news reaches the last rank without a host on the way having to read it."""


def header(tag: Tag, last_step: int, evaluate: bool) -> Tensor:
    """The words of a header, ``(8,)``: the tag; the number of the run's last step where an early end has been decided,
    ``OPEN_END`` where not; and whether a test follows that step."""
    words = [tag.kind, tag.step, tag.count, last_step, int(evaluate)]
    return torch.frombuffer(array("q", words + [0] * (HEADER.shape[0] - len(words))), dtype=HEADER.dtype)


@dataclass
class Packet:
    """The fields of one mini-batch, with the tag that says which."""

    tag: Tag
    fields: dict[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.fields[name]


@dataclass(frozen=True)
class Layout:
    """Where each field, the header before all others, lies in the flat buffer that carries a packet."""

    fields: tuple[Field, ...]
    offsets: tuple[int, ...] = field(init=False)
    nbytes: int = field(init=False)

    def __init__(self, fields: Iterable[Field]) -> None:
        object.__setattr__(self, "fields", (HEADER, *fields))
        if len({f.name for f in self.fields}) != len(self.fields):
            raise ValueError(f"a packet's fields must have different names: {[f.name for f in self.fields]}")
        offsets, end = [], 0
        for f in self.fields:
            offsets.append(end)
            end += -(-f.nbytes // ALIGNMENT) * ALIGNMENT
        object.__setattr__(self, "offsets", tuple(offsets))
        object.__setattr__(self, "nbytes", end)

    def digest(self) -> int:
        """63 bits that differ where two layouts differ, for the two sides of an edge to compare."""
        text = repr([(f.name, f.shape, str(f.dtype), at) for f, at in zip(self.fields, self.offsets, strict=True)])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1

    def views(self, buffer: Tensor) -> dict[str, Tensor]:
        """A view for each field over ``buffer``, a uint8 tensor of ``nbytes`` bytes."""
        return {
            f.name: f.view(buffer[offset : offset + f.nbytes])
            for f, offset in zip(self.fields, self.offsets, strict=True)
        }

    def select(self, fields: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of ``fields``, those that this layout carries."""
        return {f.name: fields[f.name] for f in self.fields}
