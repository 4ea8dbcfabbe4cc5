"""The source of the first block: mini-batches of images, in an order and with an augmentation that depend on the seed
and the step alone."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from trainer.clock import Clock
from trainer.data.augment import Augmentation
from trainer.data.images import DataSpec, Normalizer, Pick, Pictures
from trainer.data.mix import Mix
from trainer.hostcopy import to_device
from trainer.packet import Field, Kind, Packet, Tag, header
from trainer.plan import Plan
from trainer.seeds import derive, generator


def data_fields(spec: DataSpec, batch_size: int) -> dict[str, Field]:
    """The fields that a dataset offers: ``x``, the normalized images; ``label``, class indices or, where labels are
    soft, probabilities; ``image``, the same images as uint8."""
    images = (batch_size, *spec.image_shape)
    soft = Field("label", (batch_size, spec.num_classes), torch.float32)
    return {
        "x": Field("x", images, torch.float32),
        "label": soft if spec.soft_labels else Field("label", (batch_size,), torch.int64),
        "image": Field("image", images, torch.uint8),
    }


class ImageSource:
    """Packets of images, made ready on the device."""

    def __init__(
        self,
        images: Pictures,
        spec: DataSpec,
        augment: Sequence[Augmentation],
        plan: Plan,
        seed: int,
        device: torch.device,
        mix: Sequence[Mix] = (),
        clock: Clock | None = None,
    ) -> None:
        """Moves images in memory to ``device``. ``clock`` is told of every wait for images that are read meanwhile."""
        self._images = images.on(device, clock)
        self._augment, self._mix, self._plan, self._seed = augment, mix, plan, seed
        self._spec, self._device = spec, device
        self._normalize = Normalizer(spec, device)
        self._order: tuple[int, Sequence[Tensor], int] = (0, (), 0)
        self._mine = plan.share.of(plan.whole_batch_size)

    def packets(self, tags: Iterable[Tag]) -> Iterator[Packet]:
        """One packet for each tag."""
        tags, ahead = itertools.tee(tags)
        batches = self._images.batches(self._picked(tag) for tag in ahead)
        # The batches come first: a tag is decided when it is read, and reading ahead is the images' affair.
        for (images, labels), tag in zip(batches, tags, strict=True):
            if tag.kind is Kind.TRAIN and tag.step > self._plan.last_step:
                return  # read ahead before an early end was decided
            yield self._packet(tag, images, labels)

    def _packet(self, tag: Tag, images: Tensor, labels: Tensor) -> Packet:
        images, labels = to_device(images, self._device), to_device(labels, self._device)
        if self._spec.soft_labels:
            labels = F.one_hot(labels, self._spec.num_classes).float()
        if tag.kind is Kind.TRAIN:
            # Augmented whole, then shared out: what an image meets does not depend on the number of replicas.
            images, labels = self._in_whole_batch(images), self._in_whole_batch(labels)
            for number, augmentation in enumerate(self._augment):
                images = augmentation(images, generator(self._seed, "augment", number, tag.step))
            for number, mix in enumerate(self._mix):
                images, labels = mix(images, labels, generator(self._seed, "mix", number, tag.step))
            images, labels = self._share(images), self._share(labels)
        images = images.contiguous(memory_format=torch.channels_last)
        news = to_device(header(tag, self._plan.early_end, self._plan.evaluate), self._device)
        return Packet(tag, {"header": news, "x": self._normalize(images), "label": labels, "image": images})

    def _share(self, whole: Tensor) -> Tensor:
        """This replica's part of a whole batch."""
        return whole if self._plan.batch_size == self._plan.whole_batch_size else whole[self._mine]

    def _in_whole_batch(self, share: Tensor) -> Tensor:
        """A tensor of this replica's images, or of their labels, at their places in the whole batch, which has nothing
        in the others' places."""
        if len(share) == self._plan.whole_batch_size:
            return share
        whole = share.new_zeros(self._plan.whole_batch_size, *share.shape[1:])
        whole[self._mine] = share
        return whole

    def _picked(self, tag: Tag) -> Pick:
        """Which images a batch is made of: this replica's, in training all where images are mixed with one another; in
        a test a short batch is filled up with the split's first images."""
        split = self._images.size(tag.kind)
        if tag.kind is Kind.TEST:
            begin = self._plan.tested.start + (tag.step - 1) * self._plan.batch_size
            return Pick(tag.kind, torch.arange(begin, begin + self._plan.batch_size) % split)
        epoch, position = divmod(tag.step - 1, self._plan.steps_per_epoch)
        if self._order[0] != epoch + 1:
            order = torch.randperm(split, generator=generator(self._seed, "order", epoch + 1))
            batches = order.split(self._plan.whole_batch_size)
            self._order = (epoch + 1, batches, derive(self._seed, "read", epoch + 1))
        _, batches, draw = self._order
        places = batches[position]
        return Pick(tag.kind, places if self._mix else self._share(places), draw)
