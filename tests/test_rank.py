"""What a process is within a job: its device, its threads, and whether it shares them."""

import pytest
import torch

from tests.test_launch import TORCHRUN
from trainer.cores import available_cores
from trainer.errors import SettingError
from trainer.launch import Launch
from trainer.rank import Rank, choose_device, choose_threads, share_a_gpu


def test_threads() -> None:
    torchrun = Launch.from_environment({**TORCHRUN, "OMP_NUM_THREADS": "7"})
    assert choose_threads("auto", torchrun) == max(1, available_cores() // 2)  # torchrun sets the variable by itself
    assert choose_threads(5, torchrun) == 5
    assert choose_threads("auto", Launch(environment={"OMP_NUM_THREADS": "3"})) == 3
    assert choose_threads("auto", Launch(environment={})) == available_cores()


def test_devices() -> None:
    assert choose_device("cpu", 0) == torch.device("cpu")
    with pytest.raises(SettingError, match="device=tpu is unknown; it is auto, cpu or cuda"):
        choose_device("tpu", 0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there() -> None:
    assert choose_device("auto", 0) == torch.device("cpu")
    with pytest.raises(SettingError, match="device=cuda, but this machine has no GPU"):
        choose_device("cuda", 0)


def test_ranks_that_share_a_gpu_are_told_by_the_gpus_not_by_their_number() -> None:
    assert not share_a_gpu(["GPU-a", "GPU-b"])  # each may see its own alone
    assert share_a_gpu(["GPU-a", "GPU-b", "GPU-a"])
    assert not share_a_gpu(["cpu", "cpu"])
    with pytest.raises(SettingError, match="finds a GPU on rank 1 but none on rank 0; give every rank one, or set dev"):
        share_a_gpu(["cpu", "GPU-a"])


def test_one_process_joins_job_after_job() -> None:
    launch = Launch(environment={})
    for job in (0, 1):
        rank = Rank.join(launch, job, "cpu", 1, 10.0)
        assert rank.control.agree("x", lambda job=job: job) == job
        assert not rank.staged
        rank.leave()
