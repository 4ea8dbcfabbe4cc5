"""A block's own optimizer and learning-rate schedule."""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from trainer.errors import SettingError, at_least
from trainer.optimizers import uncompiled
from trainer.schedules import Schedule

MakeOptimizer = Callable[[Any], torch.optim.Optimizer]
"""Makes an optimizer of parameters, or of parameter groups as torch's optimizers take them."""

GROUP = "group_"
"""How the name of what an optimizer keeps for a group of parameters begins; a checkpoint has it with each of them."""

SCALARS = (bool, int, float, str, type(None))
"""What an optimizer may keep beside tensors."""

AVERAGE = "average"
"""Name of the moving average in the optimizer's state of a parameter, so that a checkpoint holds it."""


@dataclass
class UpdateOptions:
    """What an update does beyond the optimizer's step: the settings ``update``.

    Attributes:
        clip_norm: the norm that the gradient of a block, or end to end of the model, is scaled down to where it is
            larger; None for never.
        accumulate: the parts that a batch passes in, one training step each; the optimizer steps after the last, on
            their mean gradient.
        decay_norms_and_biases: whether weight decay also holds for vectors: biases and the weights of norms.
        average: the share of the old in an exponential moving average of the weights, which is then what is tested and
            saved; in update n it is at most (1 + n) / (10 + n), so that the initial weights are soon forgotten. Running
            statistics of batch norm are not averaged. None for no average.
    """

    clip_norm: float | None = None
    accumulate: int = 1
    decay_norms_and_biases: bool = True
    average: float | None = None

    def __post_init__(self) -> None:
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise SettingError(f"update.clip_norm={self.clip_norm} must be above 0, or null")
        at_least(1, {"update.accumulate": self.accumulate})
        if self.average is not None and not 0 < self.average < 1:
            raise SettingError(f"update.average={self.average} must lie between 0 and 1, or be null")

    def images_a_step(self, batch_size: int) -> int:
        """How many of the ``batch_size`` images of an update one training step has. Raises ``SettingError`` where they
        can't be shared out evenly."""
        if batch_size % self.accumulate:
            raise SettingError(
                f"update.accumulate={self.accumulate} must divide batch_size={batch_size}: every step has as many "
                f"images"
            )
        return batch_size // self.accumulate


class Update:
    """Turns a loss into new parameters: backward, schedule, optimizer step."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        make_optimizer: MakeOptimizer,
        schedule: Schedule,
        epochs: int,
        steps_per_epoch: int,
        options: UpdateOptions | None = None,
    ) -> None:
        """``parameters`` go by their names in the whole model; the schedule sees ``epochs`` of ``steps_per_epoch``."""
        self.options = options or UpdateOptions()
        groups = parameter_groups(parameters, self.options.decay_norms_and_biases)
        # In the order of the optimizer's groups, which is the order of its state.
        self.parameters = {name: value for names in groups for name, value in names["params"].items()}
        self.optimizer = make_optimizer([{**group, "params": list(group["params"].values())} for group in groups])
        self._given = [dict(group) for group in self.optimizer.param_groups]
        self._schedule, self._epochs, self._steps_per_epoch = schedule, epochs, steps_per_epoch
        self._before = 0  # updates before this one
        self._inside_batch = False
        self._total: Callable[[Tensor], Tensor] | None = None

    @property
    def learning_rate(self) -> float:
        """The rate of the last step (of the first parameter group)."""
        return float(self.optimizer.param_groups[0]["lr"])

    def begin(self, step: int) -> None:
        """Set the learning rate of step number ``step`` (from 1) and forget the gradients that have been applied. All
        steps of a batch have the rate of the first."""
        self._before, part = divmod(step - 1, self.options.accumulate)
        factor = self._schedule((step - 1 - part) / self._steps_per_epoch, self._epochs)
        for group, given in zip(self.optimizer.param_groups, self._given, strict=True):
            group["lr"] = given["lr"] * factor
        if part == 0:
            for parameter in self.parameters.values():
                parameter.grad = None

    def clip_together(self, total: Callable[[Tensor], Tensor]) -> None:
        """From now on clip by the norm over several ranks, each of which has other parameters of one model; ``total``
        is the sum of what each of them gives it."""
        self._total = total

    def backward(self, loss: Tensor) -> None:
        """Add a step's share of the gradient of its scalar ``loss``."""
        every = self.options.accumulate
        (loss / every if every > 1 else loss).backward()

    def finish(self, step: int) -> None:
        """Apply the gradients if step number ``step`` is the last of its batch."""
        self._inside_batch = step % self.options.accumulate != 0
        if not self._inside_batch:
            self.apply()

    def apply(self) -> None:
        """Let the optimizer step with the gradients that have been summed since ``begin``."""
        if self.options.clip_norm is not None:
            norm = self._whole_norm(nn.utils.get_total_norm(self.gradients()))
            nn.utils.clip_grads_with_norm_(self.parameters.values(), self.options.clip_norm, norm)
        if self.options.average is None:
            uncompiled.step(self.optimizer)
            return
        parameters = list(self.parameters.values())
        # Adam and others lay out a parameter's state in its first step, and expect it to be empty before.
        averages = [self.optimizer.state[p].pop(AVERAGE, None) for p in parameters]
        averages = [p.detach().clone() if a is None else a for p, a in zip(parameters, averages, strict=True)]
        uncompiled.step(self.optimizer)
        with torch.no_grad():
            kept = min(self.options.average, (1 + self._before) / (10 + self._before))
            torch._foreach_lerp_(averages, parameters, 1 - kept)
        for parameter, average in zip(parameters, averages, strict=True):
            self.optimizer.state[parameter][AVERAGE] = average

    def _whole_norm(self, norm: Tensor) -> Tensor:
        """The norm of the gradient of which this rank has a part with a ``norm``, a scalar."""
        return norm if self._total is None else self._total(norm.square()).sqrt()

    def gradients(self) -> list[Tensor]:
        """The gradients of the last step."""
        return [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]

    def state(self) -> dict[str, Tensor]:
        """The tensors that the optimizer keeps, under ``optimizer.<parameter>.<state>``."""
        return {name: value for name, value in self.whole_state().items() if isinstance(value, Tensor)}

    def whole_state(self) -> dict[str, Any]:
        """All that the optimizer keeps for its parameters, under the same names, with what it has changed of the group
        that a parameter belongs to."""
        groups = {
            parameter: {GROUP + key: value for key, value in group.items() if _changed(key, value, given)}
            for group, given in zip(self.optimizer.param_groups, self._given, strict=True)
            for parameter in group["params"]
        }
        return {
            f"optimizer.{name}.{key}": value
            for name, parameter in self.parameters.items()
            for key, value in {**self.optimizer.state.get(parameter, {}), **groups[parameter]}.items()
        }

    def forget(self, names: Collection[str]) -> None:
        """Remove what the optimizer keeps under ``names``, as ``state`` gives them; a parameter that no tensor is left
        of begins anew, with numbers that go with them."""
        for name, parameter in self.parameters.items():
            kept = self.optimizer.state.get(parameter, {})
            for key in [key for key in kept if f"optimizer.{name}.{key}" in names]:
                del kept[key]
            if not any(isinstance(value, Tensor) for value in kept.values()):
                self.optimizer.state.pop(parameter, None)

    def pending(self) -> dict[str, Tensor]:
        """The gradients that training steps have left for later ones, by parameter name: what a checkpoint must hold
        beside the optimizer's state inside a batch that passes in several parts."""
        if not self._inside_batch:
            return {}
        return {name: value.grad for name, value in self.parameters.items() if value.grad is not None}

    def restore(self, pending: Mapping[str, Tensor]) -> None:
        """Take over what ``pending`` gave."""
        self._inside_batch = bool(pending)
        for name, gradient in pending.items():
            self.parameters[name].grad = torch.empty_like(self.parameters[name]).copy_(gradient)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the parameters are their moving averages, where there are any."""
        if self.options.average is None:
            yield
            return
        state = self.optimizer.state
        averages = {p: state[p][AVERAGE] for p in self.parameters.values() if AVERAGE in state.get(p, {})}
        trained = {parameter: parameter.data for parameter in averages}
        for parameter, average in averages.items():
            parameter.data = average
        try:
            yield
        finally:
            for parameter, data in trained.items():
                parameter.data = data


def _changed(key: str, value: Any, given: Mapping[str, Any]) -> bool:
    """Whether an optimizer has changed an entry of its group from what was ``given``; the rate is the schedule's."""
    before = given.get(key)
    return key not in ("params", "lr") and value is not before and (isinstance(value, Tensor) or value != before)


def parameter_groups(parameters: Mapping[str, nn.Parameter], decay_norms_and_biases: bool) -> list[dict[str, Any]]:
    """The parameter groups of an optimizer, their ``params`` by name: one, or a second one of the vectors without
    weight decay."""
    if decay_norms_and_biases:
        return [{"params": dict(parameters)}]
    decayed = {name: value for name, value in parameters.items() if value.dim() > 1}
    spared = {name: value for name, value in parameters.items() if value.dim() <= 1}
    return [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]
