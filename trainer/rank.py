"""What a process is within a run: its rank, its device, its threads and its connections, in one object handed down."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import cast

import torch
import torch.distributed as dist

from trainer.cores import available_cores
from trainer.errors import PeerError, SettingError
from trainer.launch import Launch
from trainer.transport.control import Control

ABORT_MARGIN = timedelta(minutes=5)
"""NCCL aborts a process whose time is up; so much later than the process can say which rank it waited for. NCCL counts
from the moment when a receive is posted, some steps earlier."""


@dataclass
class Rank:
    """One process of a running job. ``replicas`` is the number of whole copies of the model, each on a run of
    neighboring ranks and shown its own share of every batch; it is 1 wherever all ranks share one model. ``staged``
    tells whether packets go through host memory, because some ranks share a GPU, which NCCL refuses."""

    launch: Launch
    device: torch.device
    threads: int
    timeout: timedelta
    control: Control
    replicas: int = 1
    staged: bool = False

    @classmethod
    def join(cls, launch: Launch, job: int, device: str, threads: int | str, timeout_seconds: float) -> "Rank":
        """Set up the device, the threads and the process group of job number ``job`` of this launch. Raises
        ``SettingError`` where there is no such device, or not on every rank, and ``PeerError`` where a rank does not
        come."""
        torch_device = choose_device(device, launch.local_rank)
        count = choose_threads(threads, launch)
        torch.set_num_threads(count)
        timeout = timedelta(seconds=timeout_seconds)
        attempt = (f"job{job}", f"attempt{launch.attempt}")
        devices = [device_name(torch_device)]
        if launch.world_size > 1:
            if launch.one_node and platform.system() == "Linux":
                # Nothing that one machine needs may be reachable from another.
                os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
                os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
            store = dist.PrefixStore("/".join(("ppll-group", *attempt)), launch.store)
            devices *= launch.world_size
            try:
                dist.init_process_group("gloo", None, timeout, launch.world_size, launch.rank, store)
                dist.all_gather_object(devices, devices[0])
            except RuntimeError as error:
                raise PeerError(
                    f"not all ranks have come together within timeout_seconds={timeout_seconds:g}: "
                    f"{str(error).splitlines()[0]}"
                ) from error
        return cls(launch, torch_device, count, timeout, launch.control(*attempt), staged=share_a_gpu(devices))

    @property
    def rank(self) -> int:
        """This process's number in the job."""
        return self.launch.rank

    @property
    def world_size(self) -> int:
        """How many processes the job has."""
        return self.launch.world_size

    @property
    def replica_size(self) -> int:
        """How many ranks share one copy of the model."""
        return self.world_size // self.replicas

    @property
    def replica(self) -> int:
        """Which copy of the model this rank has a part of."""
        return self.rank // self.replica_size

    @property
    def first(self) -> int:
        """The first rank of this replica, which has its images."""
        return self.replica * self.replica_size

    @property
    def backend(self) -> str:
        """What carries packets and gradients: ``nccl`` between GPUs, ``gloo`` else."""
        return "nccl" if self.device.type == "cuda" and not self.staged else "gloo"

    def group(self, ranks: Sequence[int] | None = None, one_queue: bool = True) -> dist.ProcessGroup:
        """A process group of ``ranks``, or of all, for what is on their devices. Every rank calls this for every group,
        in the same order. NCCL connects it at once and does everything in it one after another, unless ``one_queue`` is
        False: then every two ranks that talk have a connection and a queue of their own."""
        nccl = self.backend == "nccl"
        # NCCL warns of that queue, in which an edge, having one direction, has nothing else to wait for.
        os.environ.setdefault("TORCH_NCCL_SHOW_EAGER_INIT_P2P_SERIALIZATION_WARNING", "false")
        group = dist.new_group(
            None if ranks is None else list(ranks),
            self.timeout + ABORT_MARGIN if nccl else self.timeout,
            self.backend,
            device_id=self.device if nccl and one_queue else None,
        )
        return cast(dist.ProcessGroup, group)

    @property
    def shares_cores(self) -> bool:
        """Whether the ranks of this machine have to share cores or GPUs, so that their speeds are not their own."""
        if self.device.type == "cuda":
            return self.staged
        return self.launch.local_world_size * self.threads > available_cores()

    def leave(self) -> None:
        """End this job's process group, once every rank has come here; the launch can join another job afterwards."""
        self.control.part()
        if self.world_size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def device_name(device: torch.device) -> str:
    """``cpu``, or what tells a GPU from all others, on this machine and on the rest."""
    return "cpu" if device.type == "cpu" else str(torch.cuda.get_device_properties(device).uuid)


def share_a_gpu(devices: Sequence[str]) -> bool:
    """Whether some of the ranks have one GPU together, by the ``device_name`` of each. Raises ``SettingError`` where
    some have a GPU and others none."""
    gpus = [name for name in devices if name != "cpu"]
    if gpus and len(gpus) < len(devices):
        raise SettingError(
            f"device=auto finds a GPU on rank {devices.index(gpus[0])} but none on rank {devices.index('cpu')}; give "
            f"every rank one, or set device=cpu"
        )
    return len(set(gpus)) < len(gpus)


def choose_device(name: str, local_rank: int) -> torch.device:
    """The device of a rank for the setting ``device``; ranks beyond the number of GPUs share them in turn.
    Raises ``SettingError`` where there is no such device."""
    if name not in ("auto", "cpu", "cuda"):
        raise SettingError(f"device={name} is unknown; it is auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingError(
            "device=cuda, but this machine has no GPU that torch can use; leave device=auto or set device=cpu"
        )
    if name == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def choose_threads(setting: int | str, launch: Launch) -> int:
    """The number of CPU threads of this process for the setting ``threads``."""
    if setting != "auto":
        return int(setting)
    if not launch.by_torchrun and launch.environment.get("OMP_NUM_THREADS", "").isdecimal():
        return max(1, int(launch.environment["OMP_NUM_THREADS"]))
    return max(1, available_cores() // launch.local_world_size)
