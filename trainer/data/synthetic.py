"""Images without meaning that a network can still learn: for trying things out and for timing."""

import torch

from trainer.data.images import Images, Split, checked
from trainer.errors import at_least, check_share
from trainer.seeds import generator

NAMES = ("train", "test")


class Synthetic:
    """Each class is one random pattern; an image is its class's pattern under noise."""

    def __init__(
        self, train_size: int, test_size: int, num_classes: int, image_size: int, channels: int, noise: float
    ) -> None:
        """Sizes are in images, ``image_size`` in pixels; ``noise`` is the noise's share of an image, 0 to 1."""
        at_least(1, {"dataset.train_size": train_size, "dataset.test_size": test_size})
        at_least(1, {"dataset.image_size": image_size, "dataset.channels": channels})
        at_least(2, {"dataset.num_classes": num_classes})
        check_share("dataset.noise", noise)
        self._sizes, self._classes, self._noise = (train_size, test_size), num_classes, noise
        self._shape = (channels, image_size, image_size)

    def load(self) -> Images:
        """Make the images, the same in every run."""
        patterns = torch.rand(self._classes, *self._shape, generator=generator(0, "patterns"))
        train, test = (self._split(patterns, size, name) for size, name in zip(self._sizes, NAMES, strict=True))
        return checked(train, test, self._classes, "the synthetic dataset")

    def _split(self, patterns: torch.Tensor, size: int, name: str) -> Split:
        draw = generator(0, name)
        labels = torch.randint(self._classes, (size,), generator=draw)
        noise = torch.rand(size, *self._shape, generator=draw)
        images = torch.lerp(patterns[labels], noise, self._noise, out=noise)  # in place: memory takes longer than sums
        return Split(images.mul_(255).round_().to(torch.uint8), labels)
