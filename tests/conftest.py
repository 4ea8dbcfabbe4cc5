"""What every test shares: small networks, data without meaning, and the configuration as the command line makes it."""

import copy
import functools
import gc
import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hypothesis import HealthCheck, settings
from omegaconf import OmegaConf

from tests.command_line import command as command  # noqa: F401  # a fixture
from trainer.assemble import make_network
from trainer.data.images import DataSpec
from trainer.main import CONFIGS
from trainer.network import Network
from trainer.settings import Settings

Compose = Callable[..., dict[str, Any]]

settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy machine")

gc.freeze()  # Python need not search the million objects of torch for garbage again and again


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none. Begin with the files that take longest, so that all processes end
    together: those that start jobs, then those with many tests."""
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no gpu here"))
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path.parent.name != "distributed", -tests[item.path], item.path))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Equal threads for equal results, and no fight for cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def configured() -> Compose:
    """A function from command-line overrides to the resolved configuration."""

    def configure(*overrides: str) -> dict[str, Any]:
        variables = tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("WANDB_")))
        return copy.deepcopy(_composed(overrides, variables))

    return configure


@functools.cache
def _composed(overrides: tuple[str, ...], variables: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """What ``overrides`` give where the environment has these ``variables``, which the configuration reads."""
    ConfigStore.instance().store("schema", Settings)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS.resolve()), version_base="1.3"):
        config: Any = OmegaConf.to_container(compose("config", list(overrides)), resolve=True)
    return dict(config)


@pytest.fixture
def spec() -> DataSpec:
    """Small color images of ten classes."""
    return DataSpec(64, 20, 10, (3, 16, 16), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@pytest.fixture
def network(configured: Compose, spec: DataSpec) -> Network:
    """The smallest CIFAR ResNet, trained by dgl."""
    return make_network(configured("model.depth=8", "model.width=8"), spec)
