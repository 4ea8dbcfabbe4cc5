"""Edges: the way from one block to the next.

A block reads its packets from a ``Source`` and puts its output into a ``Sink``; whether the next block lives in this
process or on another rank is a matter of which pair it was given.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

from trainer.packet import Layout, Packet, Tag


class Source(Protocol):
    """Where a block's packets come from."""

    def packets(self, tags: Iterable[Tag]) -> Iterator[Packet]:
        """The packets that ``tags`` announce, in that order. A packet's tensors are valid until the next is taken."""
        ...


class Sink(Protocol):
    """Where a block's output goes."""

    def put(self, packet: Packet) -> None:
        """Hand a packet on. Its tensors stay as they are until the block's next step."""
        ...

    def close(self) -> None:
        """Wait until everything that was put has left."""
        ...


class LocalEdge:
    """The edge between two blocks of one process, source and sink in one: it holds one packet and copies nothing.

    Blocks of one process advance in turn, one step each, so a packet is always taken before the next is put.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._held: Packet | None = None

    def put(self, packet: Packet) -> None:
        """Hold ``packet`` for the next block."""
        self._held = Packet(packet.tag, self._layout.select(packet.fields))

    def packets(self, tags: Iterable[Tag]) -> Iterator[Packet]:
        """The packets that were put, one for each tag."""
        for tag in tags:
            packet, self._held = self._held, None
            if packet is None or packet.tag != tag:
                raise RuntimeError(f"the blocks of this process are out of step: {tag} expected, {packet} held")
            yield packet

    def close(self) -> None:
        """Nothing is ever under way."""


class EndSink:
    """The sink of the last block, whose output nobody needs."""

    def put(self, packet: Packet) -> None:
        """Drop ``packet``."""

    def close(self) -> None:
        """Nothing is ever under way."""
