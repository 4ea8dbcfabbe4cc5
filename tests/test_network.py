"""A model that does not fit the images is refused by the name of its unit: the first mistakes with a model of one's
own."""

import pytest
from torch import Tensor, nn

from trainer.data.images import DataSpec
from trainer.errors import SettingError
from trainer.local_losses.dgl import DGL
from trainer.network import Network

SPEC = DataSpec(16, 4, 10, (3, 8, 8), (0.5,) * 3, (0.5,) * 3)


class Pooling(nn.Module):
    """Takes maps alone."""

    def forward(self, x: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, C)``."""
        return x.mean((2, 3))


class Twice(nn.Module):
    """Gives two tensors."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``x``, twice."""
        return x, x


class Misspelled(nn.Module):
    """Fails in Python."""

    def forward(self, x: Tensor) -> Tensor:
        """Never comes to an end."""
        return x.flaten(1)  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(
    "units, message",
    [
        ([nn.Linear(3, 4)], r"unit 0 of the model can't take input of shape \(2, 3, 8, 8\): .."),
        ([nn.Flatten(), Pooling()], r"unit 1 .* can't take input of shape \(2, 192\): Dimension out of range"),
        ([nn.Flatten(), Misspelled()], r"unit 1 .* can't take input .*: 'Tensor' object has no attribute 'flaten'"),
        ([Twice(), nn.Flatten()], "unit 0 of the model gives a tuple; every unit must give one tensor"),
        ([nn.Flatten(), nn.Linear(192, 7)], r"has shape \(7,\) a sample; for 10 classes it must be \(10,\)"),
        ([nn.Conv2d(3, 10, 3)], r"has shape \(10, 6, 6\) a sample; for 10 classes it must be \(10,\)"),
    ],
    ids=["width", "no maps", "misspelled", "two tensors", "classes", "no head"],
)
def test_a_model_that_does_not_fit_is_refused_by_the_unit(units: list[nn.Module], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Network.of(nn.Sequential(*units), SPEC, DGL(), 0)


def test_a_model_that_fits_has_the_shapes_between_its_units() -> None:
    network = Network.of(nn.Sequential(nn.Conv2d(3, 5, 3), Pooling(), nn.Linear(5, 10)), SPEC, DGL(), 0)
    assert network.features == {"0": (5, 6, 6), "1": (5,), "2": (10,)}
