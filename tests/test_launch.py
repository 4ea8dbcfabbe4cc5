"""What a process makes of its environment."""

import socket
from datetime import timedelta

import pytest

from trainer.errors import PeerError, SettingError
from trainer.launch import STORE_TIMEOUT, Launch, listen_locally

TORCHRUN = {
    "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "h", "MASTER_PORT": "1"
}  # fmt: skip


def test_torchrun_tells_a_rank_who_it_is() -> None:
    launch = Launch.from_environment({**TORCHRUN, "TORCHELASTIC_RESTART_COUNT": "2"})
    assert (launch.rank, launch.world_size, launch.local_rank, launch.local_world_size, launch.restarts) == (
        3,
        4,
        1,
        2,
        2,
    )
    assert launch.by_torchrun and not launch.one_node and launch.machine == 2


def test_a_rank_that_is_alone_is_not_told_where_it_is() -> None:
    alone = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "h", "MASTER_PORT": "1"}
    launch = Launch.from_environment(alone)
    assert (launch.local_rank, launch.local_world_size, launch.one_node) == (0, 1, True)


def test_without_torchrun_there_is_one_process() -> None:
    launch = Launch.from_environment({})
    assert (launch.rank, launch.world_size, launch.one_node) == (0, 1, True) and not launch.by_torchrun


def test_one_process_waits_for_its_own_records_as_long_as_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step or a test may take longer than the five minutes that torch's store waits by itself."""
    assert Launch(environment={}).store.timeout == STORE_TIMEOUT > timedelta(days=1)
    monkeypatch.setattr("trainer.launch.STORE_TIMEOUT", timedelta(seconds=0.1))
    with pytest.raises(PeerError):  # that wait is the one which is set
        next(Launch(environment={}).control().records())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"MASTER_ADDR": None}, "sets some of torchrun's variables but not MASTER_ADDR"),
        ({"RANK": None}, "but not RANK"),
        ({"RANK": "one"}, "RANK='one' must be a whole number"),
        ({"MASTER_PORT": "http"}, "MASTER_PORT='http'"),
        ({"RANK": "4"}, "RANK=4 and WORLD_SIZE=4; a rank is below the world size"),
        ({"LOCAL_RANK": None}, "says WORLD_SIZE=4 but not LOCAL_RANK; set LOCAL_RANK to the rank's number on its "),
        ({"LOCAL_WORLD_SIZE": None}, "but not LOCAL_WORLD_SIZE; .* LOCAL_WORLD_SIZE to how many ranks the machine has"),
        ({"LOCAL_RANK": None, "LOCAL_WORLD_SIZE": None}, "but not LOCAL_RANK and LOCAL_WORLD_SIZE; "),
    ],
)
def test_an_environment_that_makes_no_sense(change: dict[str, str | None], message: str) -> None:
    environment = {key: value for key, value in {**TORCHRUN, **change}.items() if value is not None}
    with pytest.raises(SettingError, match=message):
        Launch.from_environment(environment)


def test_the_stamp_of_a_launch_stays() -> None:
    launch = Launch(environment={})
    assert launch.stamp() == launch.stamp()


def test_a_store_of_its_own_is_heard_on_this_machine_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="Address already in use"):
            listen_locally("127.0.0.1", port)
    listener = listen_locally("localhost", port)
    assert listener is not None
    with socket.socket(fileno=listener) as opened:
        assert opened.getsockname()[0] in ("127.0.0.1", "::1")
    assert listen_locally("192.0.2.1", port) is None
