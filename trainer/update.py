"""A block's own optimizer and learning-rate schedule."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from trainer.schedules import Schedule

MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Update:
    """Turns a loss into new parameters: backward, schedule, optimizer step."""

    def __init__(
        self,
        parameters: dict[str, nn.Parameter],
        make_optimizer: MakeOptimizer,
        schedule: Schedule,
        epochs: int,
        steps_per_epoch: int,
    ) -> None:
        """``parameters`` go by their names in the whole model; the schedule sees ``epochs`` of ``steps_per_epoch``."""
        self.parameters = parameters
        self.optimizer = make_optimizer(parameters.values())
        self._base_rates = [group["lr"] for group in self.optimizer.param_groups]
        self._schedule, self._epochs, self._steps_per_epoch = schedule, epochs, steps_per_epoch

    @property
    def learning_rate(self) -> float:
        """The rate of the last step (of the first parameter group)."""
        return float(self.optimizer.param_groups[0]["lr"])

    def step(self, loss: Tensor, step: int) -> None:
        """Do step number ``step`` (from 1) of the run for a scalar ``loss``."""
        factor = self._schedule((step - 1) / self._steps_per_epoch, self._epochs)
        for group, base in zip(self.optimizer.param_groups, self._base_rates, strict=True):
            group["lr"] = base * factor
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def gradients(self) -> list[Tensor]:
        """The gradients of the last step."""
        return [parameter.grad for parameter in self.parameters.values() if parameter.grad is not None]

    def state(self) -> dict[str, Tensor]:
        """The tensors that the optimizer keeps, under ``optimizer.<parameter>.<state>``."""
        return {name: value for name, value in self.whole_state().items() if isinstance(value, Tensor)}

    def whole_state(self) -> dict[str, Any]:
        """All that the optimizer keeps for its parameters, under the same names."""
        return {
            f"optimizer.{name}.{key}": value
            for name, parameter in self.parameters.items()
            for key, value in self.optimizer.state.get(parameter, {}).items()
        }
