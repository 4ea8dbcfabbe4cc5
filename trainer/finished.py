"""Reading a trained network back, with its early exits."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from yaml import YAMLError

from trainer.assemble import make_network
from trainer.block import CLASSIFIERS
from trainer.data.images import DataSpec
from trainer.errors import SettingError
from trainer.network import Network
from trainer.rundir import RunDirectory
from trainer.units import Units, named_state, placed

DAMAGED = (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What reading a file with anything in it may raise."""


class EarlyExitNetwork(nn.Module):
    """A trained network with the early exits that its local classifiers are. ``forward`` gives the whole model's
    logits, ``exits`` those of every exit.

    Attributes:
        spec: the data that it was trained on; ``spec.normalize`` turns uint8 images into what the network takes.
        cut_points: the units after which the early exits sit.
    """

    def __init__(self, network: Network, cut_points: Sequence[str], with_exits: bool) -> None:
        """Takes the modules of ``network``; ``with_exits`` is False for a run that left no local classifiers, as
        end-to-end training does."""
        super().__init__()
        self.spec: DataSpec = network.spec
        self.cut_points = list(cut_points) if with_exits else []
        self._names = network.names
        cpu = torch.device("cpu")
        self._units = nn.ModuleList(placed(unit, cpu) for unit in network.units.values())
        self._exits = nn.ModuleList(placed(network.classifier(cut, cut_points), cpu) for cut in self.cut_points)

    def exits(self, x: Tensor) -> list[Tensor]:
        """Normalized images ``(N, C, H, W)`` to the logits ``(N, classes)`` of every early exit in order, and last the
        whole model's."""
        heads = dict(zip(self.cut_points, self._exits, strict=True))
        logits = []
        for name, unit in zip(self._names, self._units, strict=True):
            x = unit(x)
            if name in heads:
                logits.append(heads[name](x))
            x = self._handed_on(name, x)
        return [*logits, x]

    def forward(self, x: Tensor) -> Tensor:
        """Normalized images ``(N, C, H, W)`` to logits ``(N, classes)``."""
        for name, unit in zip(self._names, self._units, strict=True):
            x = self._handed_on(name, unit(x))
        return x

    def _handed_on(self, name: str, features: Tensor) -> Tensor:
        """What the next unit gets: under autocast a block's features in autocast's dtype, as in training."""
        kind = features.device.type
        cast = name in self.cut_points and torch.is_autocast_enabled(kind)
        return features.to(torch.get_autocast_dtype(kind)) if cast else features

    def modules_by_name(self) -> Units:
        """Units and local classifiers under their names in ``model.safetensors``."""
        exits = {f"{CLASSIFIERS}.{cut}": head for cut, head in zip(self.cut_points, self._exits, strict=True)}
        return {**dict(zip(self._names, self._units, strict=True)), **exits}


@dataclass(frozen=True)
class FinishedRun:
    """What the files of a run that has ended say."""

    config: Mapping[str, Any]
    spec: DataSpec
    cut_points: list[str]
    weights: Mapping[str, Tensor]

    @classmethod
    def read(cls, path: str | Path) -> "FinishedRun":
        """Read a run directory. Raises ``SettingError`` where a file is missing or damaged."""
        directory = RunDirectory.existing(path)
        try:
            config: Any = OmegaConf.to_container(OmegaConf.load(directory.config), resolve=True)
            with safe_open(directory.model, framework="pt") as file:
                facts = json.loads(file.metadata()["run"])
                weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
            spec, cut_points = DataSpec.from_json(facts["data"]), [str(cut) for cut in facts["cut_points"]]
            missing = {"seed", "precision", "batch_size", "model", "local_loss", "dataset"} - config.keys()
            if missing:
                raise KeyError(*missing)
        except (*DAMAGED, YAMLError, OmegaConfBaseException, SafetensorError) as error:
            what = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise SettingError(f"{path} can't be read as the directory of a run: {what}") from error
        return cls(config, spec, cut_points, weights)

    def on_images(self, changes: Mapping[str, Any]) -> "FinishedRun":
        """The same run with other settings of the dataset. Raises ``SettingError`` for one that it has not."""
        dataset = self.config["dataset"]
        for key in changes:
            if key not in dataset:
                options = ", ".join(name for name in dataset if name != "_target_")
                raise SettingError(f"dataset.{key} is no option of the run's dataset; it has {options}")
        return replace(self, config={**self.config, "dataset": {**dataset, **changes}})

    def network(self, trust: bool) -> EarlyExitNetwork:
        """The trained network, ready to predict. Raises ``SettingError`` where the weights are not this network's."""
        with_exits = any(name.startswith(f"{CLASSIFIERS}.") for name in self.weights)
        whole = make_network(self.config, self.spec, trust, fetch=False)
        network = EarlyExitNetwork(whole, self.cut_points, with_exits)
        wanted = named_state(network.modules_by_name())
        wrong = sorted(wanted.keys() ^ self.weights.keys())
        wrong += [
            name for name in wanted.keys() & self.weights.keys() if wanted[name].shape != self.weights[name].shape
        ]
        if wrong:
            raise SettingError(f"model.safetensors does not hold the network of config.yaml: {wrong[0]} does not fit")
        for name, tensor in wanted.items():
            tensor.copy_(self.weights[name])
        return network.eval()


def load(run_dir: str | Path, trust: bool = False) -> EarlyExitNetwork:
    """The trained network of a run, on the CPU, ready to predict; the images it was trained on are not needed.

    Args:
        run_dir: the run directory.
        trust: build classes from outside ``trainer`` that the run's config.yaml names, which executes their code.

    Raises:
        SettingError: the directory is not that of a run that has ended, or a file of it is damaged.
    """
    return FinishedRun.read(run_dir).network(trust)
