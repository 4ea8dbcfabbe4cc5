"""A rank's part of an ordinary pipeline: stages as ``torch.distributed.pipelining`` takes them, and all of a rank's
stages together in the shape of a block, so that the loop of local learning drives them as well."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainer.block import Block
from trainer.hostcopy import HostCopy
from trainer.learner import Learner, Output
from trainer.local_losses.base import LossOutput, ModelOutput
from trainer.losswatch import LossWatch
from trainer.meter import Meter
from trainer.packet import Field, Kind, Packet, Tag
from trainer.transport.relay import Relay
from trainer.transport.lost import lost_group
from trainer.update import Update


class _Arrive(torch.autograd.Function):
    """Feature maps as they were sent, ``(N, H, W, C)``, to channels-last ``(N, C, H, W)``; all else as it is. The
    gradient goes back dense, the only thing that can be sent."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2) if x.dim() == 4 else x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0]
        return (gradient.permute(0, 2, 3, 1) if gradient.dim() == 4 else gradient).contiguous()


class _Leave(torch.autograd.Function):
    """The way back: dense features to what is sent. The result shares its memory but is no view for autograd, since
    the zero-bubble schedules detach it in place."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        sent = x.permute(0, 2, 3, 1) if x.dim() == 4 else x
        return sent.new_empty(0).set_(sent.untyped_storage(), sent.storage_offset(), sent.shape, sent.stride())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0].permute(0, 3, 1, 2) if gradients[0].dim() == 4 else gradients[0]


class Stage(nn.Module):
    """One stage: a block's units, whose inputs and outputs lie in memory as they are sent. Feature maps are
    channels-last and cross as ``(N, H, W, C)``, so that nothing is copied on either side."""

    def __init__(self, block: Block, first: bool, last: bool) -> None:
        """``first`` and ``last`` tell the model's two ends, which take images and give logits."""
        super().__init__()
        self.units = nn.ModuleList(block.units.values())
        self._block, self._first, self._last = block, first, last
        self._packet: Packet | None = None
        self._microbatch = 0

    def begin(self, packet: Packet) -> None:
        """What follows are the micro-batches of ``packet``, one after another."""
        self._packet, self._microbatch = packet, 0

    def forward(self, x: Tensor) -> Tensor:
        """A micro-batch, as it came, to what is sent on, or to logits ``(n, classes)``."""
        assert self._packet is not None, "a stage runs outside a step"
        if not self._first:
            x = _Arrive.apply(x)
        features = self._block.run(x, self._packet.tag, self._microbatch)
        self._microbatch += 1
        return features if self._last else _Leave.apply(_dense(features, self._block.output))


def _dense(features: Tensor, field: Field) -> Tensor:
    """Features in the dtype and the memory format in which they cross between stages."""
    return features.to(field.dtype).contiguous(memory_format=field.memory_format)


def sent_like(field: Field, images: int) -> Tensor:
    """A tensor on the meta device that is like what crosses for so many images after a block with output ``field``."""
    shape = torch.Size((images, *field.shape[1:]))
    if len(shape) == 4:
        shape = torch.Size((shape[0], shape[2], shape[3], shape[1]))
    return torch.empty(shape, dtype=field.dtype, device="meta", requires_grad=True)


class Pipelined(Learner):
    """All stages of one rank under one schedule. It learns the way a block does; the packets that pass through it carry
    labels alone, the activations are the library's business."""

    index = 0

    def __init__(
        self, modules: Sequence[Stage], blocks: Sequence[Block], last: int, update: Update, relay: Relay
    ) -> None:
        """``modules`` are made of ``blocks``, whose numbers go up to ``last`` over all ranks; ``update`` has the
        parameters of all of them."""
        self._modules, self._blocks, self._update, self._relay = modules, blocks, update, relay
        self.cut = blocks[-1].cut
        self._has_images = blocks[0].index == 0
        self.has_loss = blocks[-1].index == last
        self.meter = Meter(blocks[0].device)
        self._head = ModelOutput()
        self._watch = LossWatch("the model", lambda: update.learning_rate)
        self._schedule: Any = None

    def run_by(self, schedule: Any) -> None:
        """``schedule`` is the library's, over this rank's stages."""
        self._schedule = schedule

    def loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """The mean loss of a micro-batch, ``(n, classes)`` and its labels."""
        tag = Tag(Kind.TRAIN, 0, len(logits))
        return self._head.compute_loss(logits, Packet(tag, {"label": label})).loss

    def train(self) -> None:
        """Prepare for training steps."""
        for block in self._blocks:
            block.train()

    def eval(self) -> None:
        """Prepare for ``test``."""
        for block in self._blocks:
            block.eval()

    def forward(self, packet: Packet) -> Output:
        """Nothing yet: the labels go on to the next rank before this one starts to work."""
        return Output(packet.tag, packet.fields, incoming=packet, features=packet["label"])

    def learn(self, output: Output) -> None:
        """One step of the schedule and one of the optimizer. Raises ``NonFiniteLossError`` where the loss is NaN or
        infinite (on CUDA some steps later), and ``PeerError`` where a rank is lost."""
        losses: list[Tensor] = []
        self.update.begin(output.tag.step)
        logits = self._step(output, losses)
        with lost_group(f"step {output.tag.step}"):
            self.update.apply()
        if self.has_loss:
            loss = torch.stack([loss.detach() for loss in losses]).mean()
            self.meter.add(LossOutput(loss, logits), output["label"])
            self._watch.add(loss, output.tag.step)

    @torch.no_grad()
    def test(self, output: Output) -> None:
        """Run a test packet forward and count what is right."""
        x = output["x"] if self._has_images else None
        for block, module in zip(self._blocks, self._modules, strict=True):
            module.begin(output)
            x = module(self._relay.bring(block.index, x))
            self._relay.take(block.index, x)
        if self.has_loss:
            assert x is not None
            self.meter.add(self._head.compute_loss(x, output), output["label"])

    def check_losses(self) -> None:
        """As of a block. Raises ``NonFiniteLossError``."""
        self._watch.check()
        self._watch.check_weights(self.update.parameters.values())

    def unseen_losses(self) -> list[HostCopy]:
        """What must be finite for the state to be worth keeping."""
        return self._watch.unseen()

    def state(self) -> dict[str, Tensor]:
        """Every parameter and buffer of these stages under its global name."""
        return {name: value for block in self._blocks for name, value in block.state().items()}

    def _step(self, packet: Packet, losses: list[Tensor]) -> Tensor:
        """Let the schedule do all micro-batches of a packet; the logits, on the rank that has the model's end."""
        for module in self._modules:
            module.begin(packet)
        images = (packet["x"],) if self._has_images else ()
        target = {"target": packet["label"], "losses": losses} if self.has_loss else {}
        with lost_group(f"step {packet.tag.step}"):
            logits: Tensor = self._schedule.step(*images, **target)
        return logits
