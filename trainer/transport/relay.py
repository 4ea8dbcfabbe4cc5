"""Test batches of an ordinary pipeline, from stage to stage."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.transport.lost import lost_peer


class Relay:
    """Carries test batches forward, whole and one after another. The ``eval`` of ``torch.distributed.pipelining`` can't
    do it for the schedules in a V: it fails where two neighboring stages are on one rank."""

    def __init__(
        self,
        owners: Sequence[int],
        outputs: Sequence[Tensor],
        rank: int,
        device: torch.device,
        group: dist.ProcessGroup,
    ) -> None:
        """``owners`` has the rank of each stage, ``outputs`` a tensor like what each of them hands on; this rank has
        number ``rank`` and receives on ``device``."""
        self._owners, self._outputs, self._rank, self._device, self._group = owners, outputs, rank, device, group

    def bring(self, stage: int, made_here: Tensor | None) -> Tensor:
        """The input of ``stage``, which is ``made_here`` where this rank has made it."""
        sender = self._owners[stage - 1]
        if stage == 0 or sender == self._rank:
            assert made_here is not None
            return made_here
        x = torch.empty_like(self._outputs[stage - 1], device=self._device)
        with lost_peer(sender, "a test batch"):
            dist.recv(x, sender, self._group)
        return x

    def take(self, stage: int, x: Tensor) -> None:
        """Send the output ``x`` of ``stage`` to the next, if that is another rank's."""
        if stage + 1 == len(self._owners) or self._owners[stage + 1] == self._rank:
            return
        receiver = self._owners[stage + 1]
        with lost_peer(receiver, "room for a test batch"):
            dist.send(x, receiver, self._group)
