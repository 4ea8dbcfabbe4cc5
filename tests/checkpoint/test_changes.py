"""Which changed settings count."""

from typing import Any

from trainer.checkpoint.changes import changes

THEN: dict[str, Any] = {"seed": 0, "compile": False, "model": {"depth": 8}, "max_steps": 5}


def test_only_what_decides_the_result() -> None:
    now = {**THEN, "max_steps": 7, "model": {"depth": 14}}
    assert changes(THEN, THEN) == [] and changes(THEN, now) == ["model.depth=14 (was 8)"]


def test_a_switch_that_an_earlier_version_did_not_have_was_off() -> None:
    assert changes(THEN, {**THEN, "cuda_graphs": False, "model": {"depth": 8, "bias": False}}) == []
    assert changes(THEN, {**THEN, "cuda_graphs": True}) == ["cuda_graphs=true (was nothing)"]
    assert changes({**THEN, "cuda_graphs": True}, {**THEN, "cuda_graphs": False}) == ["cuda_graphs=false (was true)"]
