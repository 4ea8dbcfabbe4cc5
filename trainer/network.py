"""The network of a run: its units, the shapes between them, and the local classifiers that a partition asks for."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from trainer.data.images import DataSpec
from trainer.errors import SettingError
from trainer.local_losses.base import LaterUnit, LocalClassifier, LocalLoss, ModelOutput, NoLocalLoss, Site
from trainer.meta import META, Shapes, on_meta
from trainer.seeds import seeded
from trainer.units import Units, units_of, work_out_of_place

Finding = Callable[[], Mapping[str, Sequence[int]]]

Telling = Callable[[Finding], Mapping[str, Sequence[int]]]
"""Has one rank find the shapes of a network's features, and gives them to all: the meta device, where they are found,
makes torch import its compiler, for which ranks that start together would wait."""


def find_alone(find: Finding) -> Mapping[str, Sequence[int]]:
    """Where no other rank is to be told."""
    return find()


@dataclass
class Network:
    """A model before it is cut.

    Attributes:
        units: the model's units by name, in order.
        features: the shape of one sample after each unit, by the unit's name.
        spec: what is known of the data.
        local_loss: the method that the blocks but the last are trained by.
        seed: what initial weights depend on.
    """

    units: Units
    features: dict[str, tuple[int, ...]]
    spec: DataSpec
    local_loss: LocalLoss
    seed: int

    @classmethod
    def of(
        cls, model: nn.Sequential, spec: DataSpec, local_loss: LocalLoss, seed: int, told: Telling = find_alone
    ) -> "Network":
        """The network of a model; where several ranks have it, ``told`` lets one find the shapes. Raises
        ``SettingError`` where the model does not turn the images into logits."""
        units = units_of(model)
        for unit in units.values():
            _keep_input(unit)
        found = told(lambda: feature_shapes(units, spec.image_shape))
        features = {name: tuple(shape) for name, shape in found.items()}
        last = list(features.values())[-1]
        if last != (spec.num_classes,):
            raise SettingError(
                f"the model's output has shape {last} a sample; for {spec.num_classes} classes it must be "
                f"({spec.num_classes},)"
            )
        return cls(units, features, spec, local_loss, seed)

    @property
    def names(self) -> list[str]:
        """The units' names, in order."""
        return list(self.features)

    def classifier(self, cut: str, cuts: Sequence[str]) -> LocalClassifier:
        """The classifier of the block that ends with unit ``cut``, where the model is cut after each of ``cuts``. Its
        initial weights depend on the seed and its place, not on the partition."""
        if cut not in cuts:
            return ModelOutput()
        index = list(cuts).index(cut)
        site = Site(
            cut,
            index,
            len(cuts),
            self.features[cut],
            self.spec.num_classes,
            self.spec.image_shape,
            self.features[cuts[index - 1]] if index else self.spec.image_shape,
            self._after(cut),
        )
        with seeded(self.seed, "local_classifier", cut):
            return self.local_loss.classifier(site)

    def release(self) -> None:
        """Forget the model: what is needed of it has been copied, and each rank would keep all of it."""
        self.units = {}

    def end_to_end(self) -> "Network":
        """The same without local classifiers, for training by the loss at its end alone."""
        return dataclasses.replace(self, local_loss=NoLocalLoss())

    def _after(self, cut: str) -> tuple[LaterUnit, ...]:
        """The units after a cut."""
        names = self.names[self.names.index(cut) :]
        return tuple(
            LaterUnit(name, self.units[name], self.features[before], self.features[name])
            for before, name in zip(names, names[1:], strict=False)
        )

    def split(self, cuts: Sequence[str]) -> list[Units]:
        """The units of each block."""
        blocks: list[Units] = [{}]
        for name, unit in self.units.items():
            blocks[-1][name] = unit
            if name in cuts:
                blocks.append({})
        return blocks


def _keep_input(unit: nn.Module) -> None:
    """Let a unit that begins with a layer which works in place, such as an activation, work out of place: its input is
    another block's output, which the classifier there still needs."""
    while isinstance(unit, nn.Sequential) and len(unit):
        unit = unit[0]
    work_out_of_place(unit)


def feature_shapes(units: Units, image_shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The shape of one sample after each unit, found without computing anything. Raises ``SettingError`` for a unit
    that can't take what the one before it gives."""
    x = torch.empty(2, *image_shape, device=META)
    shapes = {}
    with torch.no_grad(), Shapes():
        for name, unit in units.items():
            try:
                x = on_meta(unit).eval()(x)
            except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise SettingError(
                    f"unit {name} of the model can't take input of shape {tuple(x.shape)}: {reason}"
                ) from error
            if not isinstance(x, torch.Tensor):
                raise SettingError(
                    f"unit {name} of the model gives a {type(x).__name__}; every unit must give one tensor"
                )
            shapes[name] = tuple(x.shape[1:])
    return shapes
