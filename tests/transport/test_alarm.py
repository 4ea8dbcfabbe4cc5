"""The first error, told to every machine."""

import torch.distributed as dist

from trainer.transport.alarm import Alarm


def test_only_the_first_error_is_told_and_once_on_each_machine() -> None:
    store = dist.HashStore()
    here, there = Alarm(store, 0), Alarm(store.clone(), 1)
    assert here.from_elsewhere() is None and not here.sounded()
    assert there.sound("rank 1 failed") and not here.sound("rank 0 failed")
    assert here.sounded() and there.from_elsewhere() is None
    assert [here.from_elsewhere() for _ in range(2)] == ["rank 1 failed", None]
