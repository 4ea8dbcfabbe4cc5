"""Every limit of an engine is one sentence that names the setting."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import torch
from torch.distributed import HashStore
from torch.torch_version import TorchVersion

from trainer.engines.base import StepOptions
from trainer.engines.pipeline import SCHEDULES, Pipeline
from trainer.engines.replicas import Backprop
from trainer.errors import SettingError
from trainer.launch import Launch
from trainer.plan import Plan, Share
from trainer.rank import Rank
from trainer.transport.control import Control
from trainer.update import UpdateOptions


def pipeline(schedule: str, microbatches: int = 8, batch_size: int = 32) -> Pipeline:
    return Pipeline(schedule, microbatches, batch_size)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_rank_has_equally_many_stages(schedule: str) -> None:
    engine = pipeline(schedule)
    owners = engine.place([1.0] * engine.blocks(3), 3)
    assert {owners.count(rank) for rank in range(3)} == {2 if SCHEDULES[schedule].several else 1}
    assert owners[0] == 0 and owners[-1] == (0 if SCHEDULES[schedule].in_a_v else 2)


def test_unknown_schedule() -> None:
    with pytest.raises(SettingError, match="engine.schedule=gpip is unknown; it is one of gpipe, 1f1b"):
        pipeline("gpip")


def test_uneven_microbatches() -> None:
    with pytest.raises(SettingError, match="engine.microbatches=5 must divide the 32 images of a step"):
        pipeline("gpipe", microbatches=5)


def test_one_rank_is_no_pipeline() -> None:
    with pytest.raises(SettingError, match="engine=pipeline needs at least 2 ranks"):
        pipeline("gpipe").blocks(1)


@pytest.mark.parametrize(
    ("schedule", "stages", "words"),
    [
        ("gpipe", 4, "4 blocks must be 2; set partition.blocks"),
        ("interleaved_1f1b", 3, "3 blocks must be a multiple of 2"),
        ("zbv_zero_bubble", 6, "6 blocks must be 4"),
    ],
)
def test_stages_that_do_not_fit_the_ranks(schedule: str, stages: int, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        pipeline(schedule).place([1.0] * stages, 2)


def test_too_few_microbatches() -> None:
    with pytest.raises(SettingError, match="engine.microbatches=2 is too few: engine.schedule=dual_pipe_v with 4"):
        pipeline("dual_pipe_v", microbatches=2).place([1.0] * 4, 2)


def test_uneven_rounds() -> None:
    with pytest.raises(SettingError, match="engine.microbatches=5 can't be done in 2 equal rounds"):
        pipeline("interleaved_1f1b", microbatches=5, batch_size=10).place([1.0] * 4, 2)


def test_old_torch_has_no_v_on_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.12.0+cpu"))
    pipeline("zbv_zero_bubble").check_device(cpu)
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.11.1+cpu"))
    pipeline("zbv_zero_bubble").check_device(cuda)
    pipeline("1f1b").check_device(cpu)
    with pytest.raises(SettingError, match="zbv_zero_bubble needs torch 2.12 or newer on CPUs, and this is 2.11.1"):
        pipeline("zbv_zero_bubble").check_device(cpu)


def options_on(ranks: int, **changed: Any) -> tuple[Rank, StepOptions]:
    rank = Rank(Launch(0, ranks, 0, ranks), torch.device("cpu"), 1, timedelta(1), Control(HashStore(), 0, ranks))
    plain = StepOptions(
        precision="fp32", compile=False, cuda_graphs=False, skip_bad_steps=False, update=UpdateOptions()
    )
    return rank, replace(plain, **changed)


REFUSED = [
    ("1f1b", {"update": UpdateOptions(accumulate=2)}, "update.accumulate=2 does not go with engine=pipeline; a batch "),
    ("1f1b", {"update": UpdateOptions(average=0.9)}, "update.average=0.9 does not go with engine=pipeline; use up"),
    ("1f1b", {"cuda_graphs": True}, "cuda_graphs=true does not go with engine=pipeline; use cuda_graphs=false"),
    ("1f1b", {"skip_bad_steps": True}, "on_nan=skip does not go with engine=pipeline; use on_nan=stop"),
    ("zbv_zero_bubble", {"compile": True}, "compile=true does not go with engine.schedule=zbv_zero_bubble, which"),
    (None, {"cuda_graphs": True}, "cuda_graphs=true does not go with data parallelism on 2 ranks; use cuda_graphs=fa"),
    (None, {"skip_bad_steps": True}, "on_nan=skip does not go with data parallelism on 2 ranks; use on_nan=stop"),
]


@pytest.mark.parametrize(("schedule", "changed", "message"), REFUSED)
def test_options_that_an_engine_has_no_use_for_are_refused_by_name(
    schedule: str | None, changed: dict[str, Any], message: str
) -> None:
    engine = Backprop() if schedule is None else pipeline(schedule)
    engine.check(*options_on(2))
    with pytest.raises(SettingError, match=message):
        engine.check(*options_on(2, **changed))


def test_options_that_go() -> None:
    pipeline("1f1b").check(*options_on(2, compile=True, update=UpdateOptions(clip_norm=1.0)))
    Backprop().check(*options_on(1, cuda_graphs=True, skip_bad_steps=True))


def test_backprop_is_not_cut() -> None:
    with pytest.raises(SettingError, match="engine=backprop trains the model uncut, but partition asks for 2 blocks"):
        Backprop().place([1.0, 1.0], 1)


def test_a_batch_is_shared_out_evenly_or_not_at_all() -> None:
    with pytest.raises(SettingError, match="the 10 images of a step .* can't be shared out evenly among 4 ranks"):
        Plan(40, 10, 10, 1, share=Share(0, 4))


def test_every_replica_has_something_to_test() -> None:
    with pytest.raises(SettingError, match="3 test images are too few for 4 ranks"):
        Plan(40, 3, 8, 1, share=Share(0, 4))


def test_shares_cover_everything_once() -> None:
    plans = [Plan(40, 10, 8, 1, share=Share(replica, 4)) for replica in range(4)]
    covered = [image for plan in plans for image in range(10)[plan.tested]]
    assert covered == list(range(10))
    assert [plan.batch_size for plan in plans] == [2] * 4 and plans[0].steps_per_epoch == 5
