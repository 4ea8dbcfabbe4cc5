"""The entry: what importing it costs, and how errors read."""

import re
import shlex
import subprocess
import sys

import pytest

from tests.conftest import Compose
from trainer.command_line import hydra_errors_as_sentences, ordered, repeating
from trainer.errors import SettingError
from trainer.failing import sentence
from trainer.launch import Launch


def test_importing_the_entry_imports_nothing_slow() -> None:
    slow = ("wandb", "torchvision", "sklearn", "matplotlib", "rich")
    code = f"import sys, trainer.main; print([name for name in {slow} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model=resnet33", r"^model=resnet33 is unknown; it is one of .*resnet110, .*resnet32"),
        ("nonsense=1", r"^nonsense is no option; python -m trainer.main --help lists them all$"),
        ("engine.queue=1", r"^engine.queue is no option"),
        ("seed", r"^seed can't be read as OPTION=VALUE: no spaces around the ="),
        ("partition.points=[layer1.2", r"^partition.points=\[layer1.2 can't be read as OPTION=VALUE"),
        ("output_dir=${nowhere}", r"^output_dir: .*'nowhere' not found$"),
        ("epochs=many", r"^epochs=many: .*could not be converted to Integer$"),
    ],
)
def test_mistakes_on_the_command_line_are_one_sentence(override: str, message: str, configured: Compose) -> None:
    with pytest.raises(SettingError) as caught, hydra_errors_as_sentences():
        configured(override)
    text = str(caught.value)
    assert "\n" not in text
    assert re.search(message, text), text


def test_a_sweep_is_asked_for_anywhere() -> None:
    assert ordered(["epochs=1", "--multirun", "seed=1,2"]) == ["--multirun", "epochs=1", "seed=1,2"]
    assert ordered(["epochs=1", "-m", "seed=1,2"]) == ["-m", "epochs=1", "seed=1,2"]
    assert ordered(["epochs=1", "--cfg", "job", "seed=2"]) == ["--cfg", "job", "epochs=1", "seed=2"]
    assert ordered(["epochs=1", "--config-dir=x", "-cd", "y"]) == ["--config-dir=x", "-cd", "y", "epochs=1"]


def test_a_job_is_repeated_by_one_line() -> None:
    arguments = ["--multirun", "--config-dir", "my conf", "seed=1,2", "output_dir=x"]
    launch = Launch(0, 4, 0, 4, environment={"RANK": "0"})
    again = repeating(launch, arguments, ["seed=2", "dataset.path='a\nb'", "output_dir=x"])
    expected = "torchrun --nproc_per_node=4 -m trainer.main --config-dir 'my conf' seed=2 "
    assert again.startswith(expected) and "\n" not in again and "output_dir" not in again
    for folder in ("--config-dir=mine", "-cd=mine", "hydra.searchpath=[file:///mine]"):
        assert shlex.quote(folder) in repeating(launch, ordered(["seed=1", folder]), ["seed=1"])
    several = Launch(0, 8, 0, 4, environment={"RANK": "0"})
    assert repeating(several, [], ["seed=1"]) == "torchrun --nnodes=2 --nproc_per_node=4 -m trainer.main seed=1"
    assert repeating(Launch(environment={}), [], ["epochs=1"]) == "python -m trainer.main epochs=1"


def test_our_own_sentences_stay_as_they_are() -> None:
    assert sentence(SettingError("batch_size=0 must be at least 1")) == "batch_size=0 must be at least 1"
    assert sentence(KeyError("x")) == "KeyError: 'x'"
