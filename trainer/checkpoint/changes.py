"""Which changed settings would make a resumed run end differently from one that was never stopped."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trainer.errors import SettingError

DECISIVE = (
    "model", "dataset", "local_loss", "optimizer", "scheduler", "update", "epochs", "precision", "compile",
    "cuda_graphs", "cudnn_benchmark", "deterministic", "seed", "batch_size", "on_nan",
)  # fmt: skip
"""Settings and groups that decide the result of given blocks. Ranks, ``max_steps``, tracker and paths do not; other cut
points, or an engine that trains in another way, are another objective, of which people are warned."""

HARMLESS = ("dataset.root", "dataset.path", "dataset.download", "dataset.workers")
"""Where data lies, which is compared by its own facts, and how it is read."""

LOCAL_LEARNING = ("trainer.engines.local_learning.PPLL", "trainer.engines.local_learning.Sequential")
"""Engines under which the same blocks end in the same weights."""

_ABSENT = "nothing"


def changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The decisive settings that differ, as ``name=value (was value)``. A switch that is off, and that a checkpoint of
    an earlier version does not know, was off."""
    before, after = dict(_flat(then)), dict(_flat(now))
    before = {name: value for name, value in after.items() if value == _plain(False)} | before
    return _differing(before, after)


def _differing(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    return [
        f"{name}={after.get(name, _ABSENT)} (was {before.get(name, _ABSENT)})"
        for name in sorted(before.keys() | after.keys())
        if before.get(name, _ABSENT) != after.get(name, _ABSENT)
    ]


def other_training(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The engine or its options, where it trains in another way than the one before did, as ``changes`` has it."""
    before, after = (str(config["engine"]["_target_"]) for config in (then, now))
    if {before, after} <= set(LOCAL_LEARNING):
        return []
    if before != after:
        return [f"engine={after.rpartition('.')[2]} (was {before.rpartition('.')[2]})"]
    return _differing(dict(_leaves("engine", then["engine"])), dict(_leaves("engine", now["engine"])))


def refuse_changes(
    found: Sequence[str], data_then: Mapping[str, Any], data_now: Mapping[str, Any], origin: str
) -> None:
    """Raise ``SettingError`` where ``changes`` has ``found`` some, or where the data differ from those of the
    checkpoint ``origin``."""
    if found:
        raise SettingError(
            f"{', '.join(found)}: this would change the result of the run that goes on from {origin}; set it back, "
            f"begin anew in another output_dir, or allow it with resume_strict=false"
        )
    if _plain(data_then) != _plain(data_now):
        differing = [key for key in data_now if _plain(data_now[key]) != _plain(data_then.get(key))]
        raise SettingError(
            f"the images have another {', '.join(differing)} than those that {origin} was trained on; give the same "
            f"data, or allow it with resume_strict=false"
        )


def _flat(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The decisive settings by their dotted names, their values as text."""
    for name in DECISIVE:
        if name in config:
            yield from _leaves(name, config[name])


def _leaves(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(f"{name}.{key}", inner)
    elif name not in HARMLESS:
        yield name, _plain(value)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
