"""``on_nan=skip``: a bad step leaves no trace, and a good one is what it would have been."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.command_line import TINY, CommandLine
from tests.test_update import take_step
from trainer.guard import Guard
from trainer.schedules import Constant
from trainer.update import Update

OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9, fused=True),
    "sgd with dampening": lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9, dampening=0.5),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, 0.1, fused=True),
    "nadam": lambda parameters: torch.optim.NAdam(parameters, 0.1),
}


def trained(name: str, bad_steps: set[int], guarded: bool = True) -> dict[str, Tensor]:
    """A small network after six good steps, with bad ones before, between or after them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    update = Update(dict(model.named_parameters()), OPTIMIZERS[name], Constant(), 1, 10)
    guard = Guard(lambda: {**model.state_dict(), **update.state()}, update.forget)
    images = torch.randn(6, 8, 4)
    good = iter(images)
    for step in range(6 + len(bad_steps)):
        x = torch.full((8, 4), torch.inf) if step in bad_steps else next(good)
        loss = model(x).square().mean()
        take_step(update, loss, step + 1)
        if guarded:
            assert bool(guard.settle(loss, update.gradients())) == (step not in bad_steps)
    return {**model.state_dict(), **update.state()}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_bad_steps_leave_no_trace(name: str) -> None:
    expected = trained(name, set(), guarded=False)
    for bad in ({3}, {0}, {0, 1, 7}):
        found = trained(name, bad)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], expected[key]) for key in expected), bad


def test_a_bad_step_keeps_the_optimizer_state_of_before() -> None:
    """As on a resumed run with a new classifier: some parameters have a state, and the others are stepped first."""
    model = nn.ModuleDict({"old": nn.Linear(2, 2), "new": nn.Linear(2, 2)})
    update = Update(dict(model.named_parameters()), OPTIMIZERS["adamw"], Constant(), 1, 10)
    take_step(update, model["old"](torch.ones(1, 2)).sum(), 1)
    guard = Guard(lambda: {**model.state_dict(), **update.state()}, update.forget)
    before = {name: tensor.clone() for name, tensor in update.state().items()}
    bad = model["new"](model["old"](torch.full((1, 2), torch.inf))).sum()
    take_step(update, bad, 2)
    assert len(update.state()) == 2 * len(before) and not guard.settle(bad, update.gradients())
    assert update.state().keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in update.state().items())


def test_a_finite_loss_with_a_bad_gradient_is_bad() -> None:
    weight = nn.Parameter(torch.zeros(1))
    guard = Guard(lambda: {"weight": weight}, lambda names: None)
    loss = weight.sqrt().sum()
    loss.backward()
    assert weight.grad is not None and loss.isfinite() and not weight.grad.isfinite()
    assert not guard.settle(loss, [weight.grad])


def test_weights_that_came_from_outside_stay_after_a_bad_step() -> None:
    state = {"next.weight": torch.zeros(1), "weight": torch.zeros(1)}
    guard = Guard(lambda: state, lambda names: None)
    state["next.weight"].fill_(1)
    guard.keep("next.")
    for tensor in state.values():
        tensor.add_(5)
    assert not guard.settle(torch.tensor(torch.nan), [])
    assert state == {"next.weight": torch.ones(1), "weight": torch.zeros(1)}


def test_a_last_update_that_no_loss_has_seen(command: CommandLine, tmp_path: Path) -> None:
    outcome = command(
        *TINY, "optimizer.lr=1e30", "optimizer.weight_decay=1e30", "scheduler=constant", "max_steps=1",
        f"output_dir={tmp_path}",
    )  # fmt: skip
    assert outcome.status == 1
    assert "the weights of block" in outcome.err and "are no numbers after the last step" in outcome.err
    assert not (tmp_path / "model.safetensors").exists() and not list(tmp_path.glob("checkpoints/*/manifest.json"))


def test_stop_names_block_step_and_rate_and_skip_goes_on(command: CommandLine, tmp_path: Path) -> None:
    bad = (*TINY, "optimizer.lr=1e30", "scheduler=constant", "epochs=1")
    stopped = command(*bad, f"output_dir={tmp_path}/stop")
    assert stopped.status == 1
    assert stopped.err.startswith("error: the loss of block ")
    assert "at learning rate 1e+30" in stopped.err and stopped.err.count("\n") == 1
    skipped = command(*bad, f"output_dir={tmp_path}/skip", "on_nan=skip")
    assert skipped.status == 0, skipped.err
    assert "left out its update of step" in skipped.out and "nan" not in skipped.out


def test_an_epoch_of_skipped_steps_has_no_loss(command: CommandLine, tmp_path: Path) -> None:
    bad = ("optimizer.lr=1e30", "scheduler=constant", "epochs=2", "on_nan=skip", f"output_dir={tmp_path}")
    assert command(*TINY, *bad).status == 0

    def refuse(constant: str) -> float:
        raise ValueError(f"{constant} is not JSON")

    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line, parse_constant=refuse) for line in lines]
    _, second = (record for record in records if record["kind"] == "epoch")
    assert {block["loss"] for block in second["train"]["blocks"]} == {None}
    assert {block["accuracy"] for block in second["train"]["blocks"]} == {None}
