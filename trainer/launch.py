"""How a process was started: what torchrun says of it, and the key-value store of all ranks that it can reach."""

import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

import torch.distributed as dist

from trainer.errors import SettingError
from trainer.transport.attempt import agree_on_attempt
from trainer.transport.control import Control

CONNECT_TIMEOUT = timedelta(minutes=10)
"""How long a rank looks for the control store, which rank 0 may open later. Known before any setting is."""

STORE_TIMEOUT = timedelta(days=30)
"""Waiting on the control store has no limit of its own: the launcher ends ranks whose peers have failed."""

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
            """A variable of the launcher's that holds a whole number."""
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
            alone = dist.HashStore()
            alone.set_timeout(STORE_TIMEOUT)
            return alone
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

    def store_under(self, *prefix: str) -> dist.Store:
        """The store's part under a prefix."""
        store = self.store
        for part in ("ppll", *prefix):
            store = dist.PrefixStore(part, store)
        return store

    def store_of_attempt(self, name: str) -> dist.Store:
        """The part under ``name`` that the ranks of this start have to themselves."""
        return self.store_under(name, f"attempt{self.attempt}")

    def control(self, *prefix: str) -> Control:
        """Control traffic under a prefix."""
        return Control(self.store_under(*prefix), self.rank, self.world_size)

    def stamp(self) -> str:
        """The moment of the launch by rank 0's clock, ``2026-11-23/10-42-07``, the same on every rank and after a
        restart."""
        return self.control().agree("stamp", lambda: datetime.now().strftime("%Y-%m-%d/%H-%M-%S"))


def listen_locally(address: str, port: int) -> int | None:
    """A socket that listens at a loopback address; None for any other address. The store by itself would listen on
    every interface. Raises ``OSError`` where the address is unknown or the port taken."""
    family, _, _, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
    if not ipaddress.ip_address(place[0]).is_loopback:
        return None
    return socket.create_server(place, family=family).detach()
