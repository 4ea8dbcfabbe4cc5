"""Which changed settings count."""

from typing import Any

import pytest

from trainer.checkpoint.changes import changes, other_training, refuse_changes
from trainer.errors import SettingError

THEN: dict[str, Any] = {"seed": 0, "compile": False, "model": {"depth": 8}, "max_steps": 5}


def test_only_what_decides_the_result() -> None:
    now = {**THEN, "max_steps": 7, "model": {"depth": 14}}
    assert changes(THEN, THEN) == [] and changes(THEN, now) == ["model.depth=14 (was 8)"]


def test_a_switch_that_an_earlier_version_did_not_have_was_off() -> None:
    assert changes(THEN, {**THEN, "cuda_graphs": False, "model": {"depth": 8, "bias": False}}) == []
    assert changes(THEN, {**THEN, "cuda_graphs": True}) == ["cuda_graphs=true (was nothing)"]
    assert changes({**THEN, "cuda_graphs": True}, {**THEN, "cuda_graphs": False}) == ["cuda_graphs=false (was true)"]


def test_other_images_are_refused_by_what_differs() -> None:
    data = {"train_size": 64, "mean": [0.5]}
    refuse_changes([], data, dict(data), "step-8")
    with pytest.raises(SettingError, match="^the images have another train_size than those that step-8 was trained on"):
        refuse_changes([], data, {**data, "train_size": 32}, "step-8")


def engine(kind: str, **options: Any) -> dict[str, Any]:
    return {"engine": {"_target_": f"trainer.engines.{kind}", **options}}


def test_an_engine_that_trains_otherwise_is_named() -> None:
    ppll, sequential = engine("local_learning.PPLL", queue_depth=2), engine("local_learning.Sequential")
    assert other_training(ppll, sequential) == [] == other_training(ppll, engine("local_learning.PPLL", queue_depth=4))
    pipeline = engine("pipeline.Pipeline", schedule="1f1b", microbatches=8)
    assert other_training(ppll, pipeline) == ["engine=Pipeline (was PPLL)"]
    other = engine("pipeline.Pipeline", schedule="1f1b", microbatches=4)
    assert other_training(pipeline, other) == ["engine.microbatches=4 (was 8)"]
