"""What an optimizer keeps for a group of parameters is in the checkpoint too."""

from pathlib import Path
from typing import Any

import torch

from tests.checkpoint.runs import model, results
from tests.command_line import NO_SGD, TINY, CommandLine


class Growing(torch.optim.Optimizer):
    """Like those that find their own rate: what they find lies in the parameter group, a number and a tensor."""

    def __init__(self, params: Any, lr: float) -> None:
        super().__init__(params, {"lr": lr, "found": 1e-6, "seen": None, "betas": [0.9, 0.99]})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            norm = torch.nn.utils.get_total_norm([p.grad for p in group["params"] if p.grad is not None])
            group["seen"] = norm if group["seen"] is None else group["seen"] + norm
            group["found"] *= 1.5
            for parameter in group["params"]:
                self.state[parameter]["last"] = parameter.grad.clone()
                parameter -= group["lr"] * group["found"] * parameter.grad / group["seen"]


def test_what_an_optimizer_finds_for_a_group_is_kept(command: CommandLine, tmp_path: Path) -> None:
    settings = (*TINY, f"optimizer._target_={__name__}.Growing", *NO_SGD, "update.decay_norms_and_biases=false")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for run, ends in ((whole, ["max_steps=9"]), (parts, ["max_steps=4", "max_steps=9"])):
        for end in ends:
            outcome = command(*settings, f"output_dir={run}", end)
            assert outcome.status == 0, outcome.err
    assert model(parts) == model(whole)
    assert results(parts) == results(whole)
