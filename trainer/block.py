"""A block: a run of units that trains itself from its local loss. It knows nothing of ranks."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from trainer.guard import Guard
from trainer.hostcopy import HostCopy
from trainer.learner import Learner, Output
from trainer.local_losses.base import LossOutput, LocalClassifier
from trainer.losswatch import LossWatch
from trainer.meter import Meter
from trainer.packet import Field, Packet, Tag
from trainer.precision import autocast
from trainer.seeds import derive_for_unit, seed_device
from trainer.transport.weights import Exchange
from trainer.units import Units, named_parameters, named_state, placed
from trainer.update import Update

CLASSIFIERS = "local_classifiers"
"""Prefix of the local classifiers' names in a saved model."""


class Block(Learner):
    """Units, local classifier and update of one block."""

    def __init__(
        self,
        index: int,
        cut: str,
        units: Units,
        classifier: LocalClassifier,
        output: Field,
        device: torch.device,
        seed: int,
        precision: torch.dtype = torch.float32,
    ) -> None:
        """Moves the modules to ``device``. ``cut`` names the unit that the block ends with, ``output`` declares the
        activations that it hands on, and ``precision`` is the dtype of the arithmetic."""
        self.index, self.cut = index, cut
        self.output, self.device, self.seed = output, device, seed
        self.units: Units = {name: placed(unit, device) for name, unit in units.items()}
        self.classifier = placed(classifier, device)
        self.meter = Meter(device, classifier.terms)
        self._autocast = autocast(device, precision)
        self._watch = LossWatch(f"block {index} (up to {cut})", lambda: self.update.learning_rate)
        self._exchanges: Sequence[Exchange] = ()
        self._guard: Guard | None = None
        self._testing = False

    def train_with(self, update: Update, exchanges: Sequence[Exchange] = ()) -> None:
        """Give the block what it needs to learn: its update, and the weights it exchanges with its neighbors."""
        self._update, self._exchanges = update, exchanges

    def skip_bad_steps(self) -> None:
        """From now on leave out the update of a step whose loss is not finite, instead of raising."""
        self._guard = Guard(lambda: {**self.state(), **self.update.state()}, self.update.forget)
        self._watch.skipping = True

    def compile(self) -> None:
        """Let torch.compile make kernels for each unit and each part of the classifier at their first call; what the
        classifier does between its parts stays as it is. Unit by unit, so that equal units share one, and what a unit
        computes does not depend on which others are in its process: no kernel is made for shapes in general, and, by
        ``trainer.kernels``, none is left out because there are many."""
        for module in (*self.units.values(), *_parts(self.classifier)):
            module.compile(dynamic=False)

    def modules(self) -> list[nn.Module]:
        """The units and the classifier."""
        return [*self.units.values(), self.classifier]

    def parameters(self) -> dict[str, nn.Parameter]:
        """Every parameter that is to be trained, under its global name."""
        parameters = named_parameters(self._named_modules())
        return {name: parameter for name, parameter in parameters.items() if parameter.requires_grad}

    def state(self) -> dict[str, Tensor]:
        """Every parameter and buffer under its global name, the classifier's under ``local_classifiers.<cut>``."""
        return named_state(self._named_modules())

    def _named_modules(self) -> Units:
        return {**self.units, f"{CLASSIFIERS}.{self.cut}": self.classifier}

    def train(self) -> None:
        """Prepare for training steps."""
        self._testing = False
        for module in self.modules():
            module.train()

    def eval(self) -> None:
        """Prepare for ``test``."""
        self._testing = True
        for module in self.modules():
            module.eval()

    def forward(self, packet: Packet) -> Output:
        """Run the units on ``packet["x"]``, ``(N, ...)``."""
        features = self.run(packet["x"], packet.tag)
        leaving = features.detach().to(self.output.dtype).contiguous(memory_format=self.output.memory_format)
        return Output(packet.tag, {**packet.fields, "x": leaving}, incoming=packet, features=features)

    def run(self, x: Tensor, tag: Tag, *part: int) -> Tensor:
        """The units' features of ``x``, ``(N, ...)``, with their graph. ``part`` numbers the parts of a batch that runs
        in several."""
        with self._autocast, self._weights_in_use():
            for name, unit in self.units.items():
                self._seed(tag, name, *part)
                x = unit(x)
        return x

    def learn(self, output: Output) -> None:
        """Local loss, backward, optimizer step, schedule. Raises ``NonFiniteLossError`` where the loss is NaN or
        infinite (on CUDA some steps later), unless such steps are skipped."""
        step = output.tag.step
        for exchange in self._exchanges:
            exchange.before(step)
        if self._guard is not None and self._exchanges:
            self._guard.keep(f"{CLASSIFIERS}.{self.cut}.")
        self.update.begin(step)
        result = self.differentiate(output)
        self.update.finish(step)
        good = None if self._guard is None else self._guard.settle(result.loss, self.update.gradients())
        for exchange in self._exchanges:
            exchange.after(step)
        self.meter.add(result, output["label"], good)
        self._watch.add(result.loss, step, good)

    def differentiate(self, output: Output) -> LossOutput:
        """Judge what ``forward`` gave last, and leave the gradients with the parameters."""
        with self._autocast:
            self._seed(output.tag, f"{CLASSIFIERS}.{self.cut}")
            result = self.classifier.compute_loss(output.features, output.incoming)
        self.update.backward(result.loss)
        # The packet may be held for a while, and what it was made by need not be.
        output.features = output.features.detach()
        return result.detach()

    @torch.no_grad()
    def test(self, output: Output) -> None:
        """Run the classifier on the output for a test packet and count what is right."""
        with self._autocast, self._weights_in_use():
            result = self.classifier.compute_loss(output.features, output.incoming)
        self.meter.add(result, output["label"])

    def result(self) -> dict[str, Tensor]:
        """What training has come to, under global names: ``state``, with the weights that a test sees."""
        self._testing = True
        with self._weights_in_use():
            return self.state()

    def _weights_in_use(self) -> AbstractContextManager[None]:
        """In a test the moving averages of the weights, where there are any."""
        if self._update is None or not self._testing:
            return nullcontext()
        return self._update.averaged()

    def check_losses(self) -> None:
        """The block's own."""
        self._watch.check()
        self._watch.check_weights(self.parameters().values())

    def unseen_losses(self) -> list[HostCopy]:
        """The block's own."""
        return self._watch.unseen()

    def copied_units(self) -> dict[str, str]:
        """What the classifier copies from the model."""
        prefix = f"{CLASSIFIERS}.{self.cut}"
        return {f"{prefix}.{name}": origin for name, origin in self.classifier.copied_units().items()}

    def exchange_state(self) -> dict[str, Tensor]:
        """Of every exchange."""
        return {name: tensor for exchange in self._exchanges for name, tensor in exchange.state().items()}

    def resume_exchange(self, done: int, state: Mapping[str, Tensor]) -> None:
        """Of every exchange."""
        for exchange in self._exchanges:
            exchange.resume(done, state)

    def close(self) -> None:
        """End the exchange of weights; the run is over."""
        for exchange in self._exchanges:
            exchange.close()

    def _seed(self, tag: Tag, *unit: str | int) -> None:
        """Let dropout and the like draw the same numbers wherever the unit runs, but others in each replica."""
        copy = ("replica", self.replica) if self.replica else ()
        seed_device(self.device, derive_for_unit(self.seed, tag.kind, tag.step, *unit, *copy))


def _parts(classifier: nn.Module) -> list[nn.Module]:
    """The modules that a local classifier calls: its children, and those of classifiers inside it and of lists."""
    parts = []
    for child in classifier.children():
        parts += _parts(child) if isinstance(child, LocalClassifier | nn.ModuleList) else [child]
    return parts
