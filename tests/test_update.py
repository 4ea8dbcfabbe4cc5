"""Updates: what happens between a loss and the new weights."""

import pytest
import torch
from torch import nn

from trainer.errors import SettingError
from trainer.schedules import Constant, Step
from trainer.update import Update, UpdateOptions


def sgd(groups):
    return torch.optim.SGD(groups, lr=0.5)


def adam(groups):
    return torch.optim.Adam(groups, lr=0.1)


def one_weight(make_optimizer=sgd, **options):
    weight = nn.Parameter(torch.tensor([2.0]))
    return weight, Update({"w": weight}, make_optimizer, Constant(), 10, 10, UpdateOptions(**options))


def take_step(update, loss, number):
    """Training step ``number`` (from 1) for a scalar loss."""
    update.begin(number)
    update.backward(loss)
    update.finish(number)


def test_a_step_follows_the_gradient_and_the_schedule():
    weight = nn.Parameter(torch.tensor([2.0]))
    update = Update({"w": weight}, sgd, Step([1.0], 0.1), 2, 1)
    take_step(update, 3 * weight.sum(), 1)
    assert weight.item() == pytest.approx(0.5) and update.learning_rate == 0.5
    take_step(update, 3 * weight.sum(), 2)
    assert weight.item() == pytest.approx(0.5 - 0.05 * 3) and update.learning_rate == pytest.approx(0.05)


def test_clipping_scales_the_whole_gradient_of_a_block():
    a, b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    update = Update({"a": a, "b": b}, sgd, Constant(), 1, 2, UpdateOptions(clip_norm=1.0))
    take_step(update, 3 * a.sum() + 4 * b.sum(), 1)
    assert a.item() == pytest.approx(-0.3, abs=1e-5) and b.item() == pytest.approx(-0.4, abs=1e-5)
    take_step(update, 0.3 * a.sum() + 0.4 * b.sum(), 2)
    assert a.item() == pytest.approx(-0.45, abs=1e-5)


def test_accumulation_steps_on_the_mean_gradient():
    weight, update = one_weight(accumulate=2)
    take_step(update, 1 * weight.sum(), 1)
    assert weight.item() == 2.0 and update.pending()["w"].item() == 0.5
    take_step(update, 3 * weight.sum(), 2)
    assert weight.item() == pytest.approx(2.0 - 0.5 * 2)
    take_step(update, 1 * weight.sum(), 3)
    assert weight.item() == pytest.approx(1.0)


def test_accumulation_goes_on_where_it_was_interrupted():
    weight, update = one_weight(accumulate=2)
    take_step(update, 1 * weight.sum(), 1)
    other, resumed = one_weight(accumulate=2)
    resumed.restore(update.pending())
    take_step(resumed, 3 * other.sum(), 2)
    assert other.item() == pytest.approx(1.0)
    assert one_weight()[1].pending() == {}


def test_weight_decay_spares_vectors_where_asked():
    layer = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    before = {name: value.detach().clone() for name, value in layer.named_parameters()}

    def decaying(groups):
        return torch.optim.SGD(groups, lr=1.0, weight_decay=0.5)

    parameters = dict(reversed(list(layer.named_parameters())))
    update = Update(parameters, decaying, Constant(), 1, 1, UpdateOptions(decay_norms_and_biases=False))
    take_step(update, 0 * sum(value.sum() for value in layer.parameters()), 1)
    for name, value in layer.named_parameters():
        expected = before[name] * 0.5 if name == "0.weight" else before[name]
        assert torch.allclose(value, expected), name
    # The order that checkpoints number the optimizer's state by.
    assert [id(p) for group in update.optimizer.param_groups for p in group["params"]] == [
        id(p) for p in update.parameters.values()
    ]


@pytest.mark.parametrize("make_optimizer", [sgd, adam])
def test_the_moving_average_is_what_a_test_sees(make_optimizer):
    """At first with the share that the number of updates allows, then with the one that is set."""
    weight, update = one_weight(make_optimizer, average=0.15)
    plain, reference = one_weight(make_optimizer)
    expected = 2.0
    for step, kept in enumerate([1 / 10, 0.15, 0.15], start=1):
        take_step(update, weight.sum() ** 2, step)
        take_step(reference, plain.sum() ** 2, step)
        expected = kept * expected + (1 - kept) * plain.item()
    assert weight.item() == plain.item()
    with update.averaged():
        assert weight.item() == pytest.approx(expected) and weight.item() != plain.item()
    assert weight.item() == plain.item()
    assert update.optimizer.state[weight]["average"].item() == pytest.approx(expected)


def test_without_an_average_a_test_sees_the_weights():
    weight, update = one_weight()
    take_step(update, weight.sum(), 1)
    with update.averaged():
        assert weight.item() == 1.5


@pytest.mark.parametrize(
    "options, message",
    [
        ({"clip_norm": 0.0}, "update.clip_norm=0.0 must be above 0"),
        ({"accumulate": 0}, "update.accumulate=0 must be at least 1"),
        ({"average": 1.0}, "update.average=1.0 must lie between 0 and 1"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(SettingError, match=message):
        UpdateOptions(**options)


def test_a_batch_in_parts_has_one_rate_and_no_image_more():
    weight = nn.Parameter(torch.tensor([2.0]))
    update = Update({"w": weight}, sgd, lambda epoch, epochs: 1 - epoch / epochs, 4, 10, UpdateOptions(accumulate=2))
    for step in (5, 6):
        take_step(update, 1 * weight.sum(), step)
        assert update.learning_rate == pytest.approx(0.5 * (1 - 0.4 / 4))
    assert UpdateOptions(accumulate=4).images_a_step(12) == 3
    with pytest.raises(SettingError, match="update.accumulate=5 must divide batch_size=12"):
        UpdateOptions(accumulate=5).images_a_step(12)
