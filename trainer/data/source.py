"""The source of the first block: mini-batches of images, in an order and with an augmentation that depend on the seed
and the step alone."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from trainer.data.augment import Augmentation
from trainer.data.images import DataSpec, Images, Normalizer, Split
from trainer.packet import Field, Kind, Packet, Tag
from trainer.plan import Plan
from trainer.seeds import generator


def data_fields(spec: DataSpec, batch_size: int) -> dict[str, Field]:
    """The fields that a dataset offers: ``x``, the normalised images; ``label``; ``image``, the same images as
    uint8."""
    images = (batch_size, *spec.image_shape)
    return {
        "x": Field("x", images, torch.float32),
        "label": Field("label", (batch_size,), torch.int64),
        "image": Field("image", images, torch.uint8),
    }


class ImageSource:
    """Packets of images that lie on the device."""

    def __init__(
        self,
        images: Images,
        spec: DataSpec,
        augment: Sequence[Augmentation],
        plan: Plan,
        seed: int,
        device: torch.device,
    ) -> None:
        """Moves the images to ``device``."""
        self._splits = {Kind.TRAIN: images.train.to(device), Kind.TEST: images.test.to(device)}
        self._augment, self._plan, self._seed = augment, plan, seed
        self._normalize = Normalizer(spec, device)
        self._order = (0, torch.empty(0))

    def packets(self, tags: Iterable[Tag]) -> Iterator[Packet]:
        """One packet for each tag."""
        for tag in tags:
            yield self._packet(tag)

    def _packet(self, tag: Tag) -> Packet:
        split = self._splits[tag.kind]
        picked = self._picked(tag, split)
        images, labels = split.images[picked], split.labels[picked]
        if tag.kind is Kind.TRAIN:
            for number, augmentation in enumerate(self._augment):
                images = augmentation(images, generator(self._seed, "augment", number, tag.step))
            # Augmented whole, then shared out: what an image meets does not depend on the number of replicas.
            mine = self._plan.share.of(self._plan.whole_batch_size)
            images, labels = images[mine], labels[mine]
        images = images.contiguous(memory_format=torch.channels_last)
        fields = {"x": self._normalize(images), "label": labels, "image": images}
        return Packet(tag, fields, self._plan.early_end, self._plan.evaluate)

    def _picked(self, tag: Tag, split: Split) -> Tensor:
        """Which images a batch is made of: of the whole one in training, of this replica's in a test, where a short one
        is filled up with the split's first images."""
        if tag.kind is Kind.TEST:
            begin = self._plan.tested.start + (tag.step - 1) * self._plan.batch_size
            return torch.arange(begin, begin + self._plan.batch_size, device=split.labels.device) % len(split)
        size = self._plan.whole_batch_size
        epoch, position = divmod(tag.step - 1, self._plan.steps_per_epoch)
        if self._order[0] != epoch + 1:
            order = torch.randperm(len(split), generator=generator(self._seed, "order", epoch + 1))
            self._order = (epoch + 1, order.to(split.labels.device))
        return self._order[1][position * size : (position + 1) * size]
