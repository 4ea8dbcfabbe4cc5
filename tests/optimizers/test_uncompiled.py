"""Optimizers without torch's compiler: the same updates, and no import of it."""

import copy
import subprocess
import sys

import pytest
import torch
from torch import nn

from trainer.optimizers import uncompiled
from trainer.optimizers.lars import LARS

MAKERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.1),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.1, fused=True),
    "lars": lambda parameters: LARS(parameters, lr=0.1),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_the_same_updates_as_by_torch(make):
    torch.manual_seed(0)
    ours = nn.Linear(3, 2)
    theirs, again = copy.deepcopy(ours), copy.deepcopy(ours)
    optimizer, reference = uncompiled.made(lambda: make(ours.parameters())), make(theirs.parameters())
    for update, model in ((lambda: uncompiled.step(optimizer), ours), (lambda: reference.step(), theirs)):
        for number in range(3):
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, 0.5 + number)
            update()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert str(uncompiled.state_dict(optimizer)) == str(reference.state_dict())
    resumed = uncompiled.made(lambda: make(again.parameters()))
    uncompiled.load_state_dict(resumed, reference.state_dict())
    assert str(resumed.state_dict()) == str(reference.state_dict())


def test_a_users_optimizer_keeps_its_hooks_and_may_differentiate() -> None:
    class Users(torch.optim.SGD):
        def step(self, closure=None):
            seen.append(torch.is_grad_enabled())

    seen: list[object] = []
    optimizer = Users([nn.Parameter(torch.zeros(1))], lr=0.1)
    optimizer.register_step_post_hook(lambda *_: seen.append("stepped"))
    uncompiled.step(optimizer)
    assert seen == [True, "stepped"]


def test_the_compiler_is_not_imported():
    program = """
import sys, torch
from trainer.optimizers import uncompiled
for kind in (torch.optim.SGD, torch.optim.AdamW):
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    optimizer = uncompiled.made(lambda: kind([weight], lr=0.1))
    uncompiled.step(optimizer)
    uncompiled.load_state_dict(optimizer, uncompiled.state_dict(optimizer))
assert weight.max() < 1
print("torch._dynamo" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert run.stdout.strip() == "False", run.stdout + run.stderr
