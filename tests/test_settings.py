"""Settings are checked, and classes are built from them, with one sentence for each mistake."""

import sys
import types
from typing import Any

import pytest

from trainer.building import build, locate
from trainer.errors import SettingError
from trainer.settings import Settings, check


class Target:
    """Something that a yaml might name."""

    def __init__(
        self, size: int, rate: float = 0.1, name: str | None = None, flag: bool = False, part: Any = None
    ) -> None:
        self.values = (size, rate, name, flag, part)


PATH = "settings_target.Target"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ``Target`` importable by name, however pytest imported this file."""
    monkeypatch.setitem(sys.modules, "settings_target", types.SimpleNamespace(Target=Target))


def test_a_target_gets_its_settings_and_what_is_offered() -> None:
    built = build("group", {"_target_": PATH, "size": 3, "other": 1}, leave=["other"], offer={"rate": 2, "unknown": 0})
    assert built.values == (3, 2, None, False, None)


def test_nested_targets_are_built_too() -> None:
    node = {"_target_": PATH, "size": 1, "part": [{"_target_": PATH, "size": 2}]}
    assert build("group", node).values[4][0].values[0] == 2


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"size": "x"}, r"group.size=x must be a whole number"),
        ({"size": 1.5}, r"group.size=1.5 must be a whole number"),
        ({"size": True}, r"group.size=true must be a whole number"),
        ({"size": None}, r"group.size=null must be a whole number"),
        ({"size": 1, "rate": "fast"}, r"group.rate=fast must be a number"),
        ({"size": 1, "name": 3}, r"group.name=3 must be text or null"),
        ({"size": 1, "flag": 1}, r"group.flag=1 must be true or false"),
        ({"size": 1, "extra": 1}, r"group does not fit .*Target: got an unexpected keyword argument 'extra'"),
        ({}, r"group does not fit .*Target: missing a required argument: 'size'"),
    ],
)
def test_wrong_values(node: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        build("group", {"_target_": PATH, **node})


@pytest.mark.parametrize("node", [{}, None, {"_target_": 3}, "dgl"])
def test_a_node_without_a_target(node: Any) -> None:
    with pytest.raises(SettingError, match="group has no _target_; choose one of the files in conf/group/"):
        build("group", node)


@pytest.mark.parametrize("path", ["nowhere.Thing", "trainer.nothing", "word", "", "."])
def test_a_target_that_is_not_there(path: str) -> None:
    with pytest.raises(SettingError, match="group._target_=.* can't be imported"):
        locate("group", path)


@pytest.mark.parametrize("path", ["os.system", "trainer.checkpoint.collector.remove", "trainer.data.npz.Path"])
def test_what_may_do_harm_is_not_built_when_a_run_is_read(path: str) -> None:
    with pytest.raises(SettingError, match=f"model._target_={path} lies outside trainer's own models, .* add --trust"):
        build("model", {"_target_": path}, trust=False)


def test_our_own_models_data_and_losses_are_trusted() -> None:
    assert build("local_loss", {"_target_": "trainer.local_losses.greedy.Greedy"}, trust=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timeout_seconds": float("nan")}, "timeout_seconds=nan must lie between 1 and"),
        ({"timeout_seconds": float("inf")}, "timeout_seconds=inf must lie between 1 and"),
        ({"output_dir": ""}, "output_dir= is empty"),
    ],
)
def test_top_level_settings_that_a_command_line_hardly_gives(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        check(Settings(**change))


def test_the_defaults_are_right() -> None:
    check(Settings())
