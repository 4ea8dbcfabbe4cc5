"""What a process is within a run: its rank, its device, its threads and its connections, in one object handed down."""

import ipaddress
import os
import platform
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import cast

import torch
import torch.distributed as dist

from trainer.errors import SettingError
from trainer.transport.attempt import agree_on_attempt
from trainer.transport.control import Control

CONNECT_TIMEOUT = timedelta(minutes=10)
"""How long a rank looks for the control store, which rank 0 may open later. Known before any setting is."""

STORE_TIMEOUT = timedelta(days=30)
"""Waiting on the control store has no limit of its own: the launcher ends ranks whose peers have failed."""

ABORT_MARGIN = timedelta(minutes=1)
"""NCCL aborts a process whose time is up; so much later than the process can say which rank it waited for."""

LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

LOCAL_VARIABLES = ("LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""What several ranks need beside them: nothing else tells whether they are on one machine, and which of its GPUs is
whose. A launcher such as srun or mpirun has other names for them."""


@dataclass(frozen=True)
class Launch:
    """How this process was started: by torchrun (or anything that sets its variables), or alone."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    restarts: int = 0
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Launch":
        """Read torchrun's variables. Raises ``SettingError`` where they are incomplete or make no sense; a rank that is
        alone needs none that say where it is."""
        if "RANK" not in environment and "WORLD_SIZE" not in environment:
            return cls(environment=environment)
        missing = [name for name in LAUNCHER_VARIABLES if name not in environment]
        if missing:
            raise SettingError(
                f"the environment sets some of torchrun's variables but not {', '.join(missing)}; "
                "start the ranks with torchrun, or unset RANK and WORLD_SIZE to run one process"
            )

        def number(name: str, default: str) -> int:
            value = environment.get(name, default)
            if not value.isdecimal():
                raise SettingError(
                    f"the environment variable {name}={value!r} must be a whole number, as torchrun sets it"
                )
            return int(value)

        rank, world_size = number("RANK", ""), number("WORLD_SIZE", "")
        number("MASTER_PORT", "")
        if rank >= world_size:
            raise SettingError(
                f"the environment says RANK={rank} and WORLD_SIZE={world_size}; a rank is below the world size"
            )
        missing = [name for name in LOCAL_VARIABLES if name not in environment]
        if missing and world_size > 1:
            raise SettingError(
                f"the environment says WORLD_SIZE={world_size} but not {' and '.join(missing)}; set LOCAL_RANK to the "
                "rank's number on its machine and LOCAL_WORLD_SIZE to how many ranks the machine has, as torchrun does"
            )
        return cls(
            rank,
            world_size,
            number("LOCAL_RANK", "0"),
            number("LOCAL_WORLD_SIZE", "1"),
            number("TORCHELASTIC_RESTART_COUNT", "0"),
            environment,
        )

    @property
    def by_torchrun(self) -> bool:
        """Whether a launcher started this process."""
        return "RANK" in self.environment

    @property
    def machine(self) -> int:
        """This machine's number: its lowest rank."""
        return self.rank - self.local_rank

    @property
    def one_node(self) -> bool:
        """Whether every rank is on this machine."""
        return self.local_world_size == self.world_size

    @cached_property
    def store(self) -> dist.Store:
        """The key-value store of the whole launch: torchrun's own where it offers one; it survives restarts. Raises
        ``SettingError`` where it can't be opened or reached."""
        if not self.by_torchrun:
            return dist.HashStore()
        hosted = self.environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        address, port = self.environment["MASTER_ADDR"], int(self.environment["MASTER_PORT"])
        opens = self.rank == 0 and not hosted
        try:
            listener = listen_locally(address, port) if opens and self.one_node else None
            store = dist.TCPStore(address, port, is_master=opens, timeout=CONNECT_TIMEOUT, master_listen_fd=listener)
        except (dist.DistError, OSError) as error:
            raise SettingError(
                f"the environment says MASTER_ADDR={address} and MASTER_PORT={port}, where rank {self.rank} can't "
                f"{'open' if opens else 'reach'} what the ranks agree through; they must be an address and a free port "
                f"of rank 0's machine ({str(error).splitlines()[0]})"
            ) from error
        store.set_timeout(STORE_TIMEOUT)
        return store

    def connected(self) -> "Launch":
        """This launch, once its store is there. Raises as ``store`` does."""
        self.control()
        return self

    @cached_property
    def attempt(self) -> int:
        """How often this launch's ranks have been started, with this time; the same on every rank."""
        if self.one_node:
            return self.restarts + 1
        return agree_on_attempt(dist.PrefixStore("ppll-attempt", self.store), self.rank, self.world_size)

    def control(self, *prefix: str) -> Control:
        """Control traffic under a prefix."""
        store = self.store
        for part in ("ppll", *prefix):
            store = dist.PrefixStore(part, store)
        return Control(store, self.rank, self.world_size)

    def stamp(self) -> str:
        """The moment of the launch by rank 0's clock, ``2026-11-23/10-42-07``, the same on every rank and after a
        restart."""
        return self.control().agree("stamp", lambda: datetime.now().strftime("%Y-%m-%d/%H-%M-%S"))


@dataclass
class Rank:
    """One process of a running job. ``replicas`` is the number of whole copies of the model, each on a run of
    neighboring ranks and shown its own share of every batch; it is 1 wherever all ranks share one model. ``staged``
    tells whether packets go through host memory, because some ranks share a GPU, which NCCL refuses."""

    launch: Launch
    job: int
    device: torch.device
    threads: int
    timeout: timedelta
    control: Control
    replicas: int = 1
    staged: bool = False

    @classmethod
    def join(cls, launch: Launch, job: int, device: str, threads: int | str, timeout_seconds: float) -> "Rank":
        """Set up the device, the threads and the process group of job number ``job`` of this launch. Raises
        ``SettingError`` where there is no such device, or not on every rank."""
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
            dist.init_process_group(
                "gloo",
                store=dist.PrefixStore("/".join(("ppll-group", *attempt)), launch.store),
                rank=launch.rank,
                world_size=launch.world_size,
                timeout=timeout,
            )
            devices *= launch.world_size
            dist.all_gather_object(devices, devices[0])
        return cls(launch, job, torch_device, count, timeout, launch.control(*attempt), staged=share_a_gpu(devices))

    @property
    def rank(self) -> int:
        """This process's number in the job."""
        return self.launch.rank

    @property
    def world_size(self) -> int:
        """How many processes the job has."""
        return self.launch.world_size

    @property
    def replica(self) -> int:
        """Which copy of the model this rank has a part of."""
        return self.rank // (self.world_size // self.replicas)

    @property
    def first(self) -> int:
        """The first rank of this replica, which has its images."""
        return self.replica * (self.world_size // self.replicas)

    @property
    def backend(self) -> str:
        """What carries packets and gradients: ``nccl`` between GPUs, ``gloo`` else."""
        return "nccl" if self.device.type == "cuda" and not self.staged else "gloo"

    def group(self, ranks: Sequence[int] | None = None) -> dist.ProcessGroup:
        """A process group of ``ranks``, or of all, for what is on their devices. Every rank calls this for every group,
        in the same order."""
        nccl = self.backend == "nccl"
        group = dist.new_group(
            None if ranks is None else list(ranks),
            self.timeout + ABORT_MARGIN if nccl else self.timeout,
            self.backend,
            device_id=self.device if nccl else None,
        )
        return cast(dist.ProcessGroup, group)

    @property
    def shares_cores(self) -> bool:
        """Whether the ranks of this machine have to share cores or GPUs, so that their speeds are not their own."""
        if self.device.type == "cuda":
            return self.staged
        return self.launch.local_world_size * self.threads > available_cores()

    def leave(self) -> None:
        """End this job's process group; the launch can join another job afterwards."""
        if self.world_size > 1 and dist.is_initialized():
            dist.destroy_process_group()


def listen_locally(address: str, port: int) -> int | None:
    """A socket that listens at a loopback address; None for any other address. The store by itself would listen on
    every interface. Raises ``OSError`` where the address is unknown or the port taken."""
    family, _, _, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
    if not ipaddress.ip_address(place[0]).is_loopback:
        return None
    return socket.create_server(place, family=family).detach()


def available_cores() -> int:
    """The cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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


def set_deterministic(wanted: bool) -> None:
    """Let torch use only operations that repeat bit for bit, or whichever is fastest; where CUDA has none that repeats,
    torch raises when it is called."""
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    if wanted != torch.are_deterministic_algorithms_enabled():  # the call imports a compiler
        torch.use_deterministic_algorithms(wanted)


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
