"""A finished run is read back as it was, and a damaged one is refused."""

import contextlib
import importlib
import json
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from safetensors.torch import load_file, save_file

import trainer.evaluate
from tests.conftest import Compose
from tests.test_properties import mutated
from trainer.assemble import make_network
from trainer.blocks import make_block
from trainer.data.images import DataSpec
from trainer.errors import SettingError
from trainer.evaluate import evaluate
from trainer.finished import EarlyExitNetwork
from trainer.main import Launch, Rank
from trainer.packet import Kind, Packet, Tag
from trainer.precision import autocast
from trainer.run import Run
from trainer.rundir import RunDirectory
from trainer.training import save_model, train

SMALL = (
    "dataset=synthetic", "dataset.train_size=64", "dataset.test_size=20", "dataset.image_size=8", "batch_size=16",
    "model.depth=8", "model.width=8", "epochs=2", "engine=sequential", "partition.blocks=3", "tracker=none",
    "threads=1",
)  # fmt: skip


@pytest.fixture
def finished(configured: Compose, tmp_path: Path) -> Path:
    """The directory of a real run."""
    from omegaconf import OmegaConf

    config = configured(*SMALL, f"output_dir={tmp_path}/run")
    rank = Rank.join(Launch(environment={}), 0, "cpu", 1, 10.0)
    directory = RunDirectory.create(config["output_dir"], "")
    accuracy = train(Run(config, rank), directory, OmegaConf.to_yaml(OmegaConf.create(config)))
    summary = json.loads(directory.metrics.read_text().splitlines()[-1])
    assert summary["test_accuracy"] == accuracy and summary["kind"] == "summary"
    return directory.path


def test_evaluation_equals_the_runs_own(finished: Path) -> None:
    summary = json.loads((finished / "metrics.jsonl").read_text().splitlines()[-1])
    assert evaluate(str(finished)) == summary["exit_accuracies"]
    assert evaluate(str(finished), batch_size=7) == summary["exit_accuracies"]


def test_evaluation_on_other_images(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def printed(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["trainer.evaluate", str(finished), *arguments])
        with contextlib.suppress(SystemExit):
            trainer.evaluate.main()
        said = capsys.readouterr()
        return said.out or said.err

    whole = evaluate(str(finished), dataset={"test_size": 15})[-1]
    assert whole != evaluate(str(finished))[-1]
    assert re.search(f"the whole model +{100 * whole:.2f} %", printed("dataset.test_size=15"))
    assert printed("dataset.validation=8").startswith("validation accuracy of")
    assert printed("--trust", "--device", "cpu", "dataset.validation=8").startswith("validation accuracy of")
    shape = "the dataset has images of shape (3, 4, 4), but the network was trained for (3, 8, 8)"
    assert printed("dataset.image_size=4") == f"error: {shape}\n"
    assert "dataset.place is no option of the run's dataset; it has image_size, mean, " in printed("dataset.place=here")
    assert printed("root=here").endswith("error: root=here can't be read as dataset.OPTION=VALUE\n")
    if not torch.cuda.is_available():
        assert "--device cuda, but this machine has no GPU that torch can use" in printed("--device", "cuda")
    for setting, reason in (
        ("dataset.root=@x", "while scanning for the next token"),
        ("dataset.mean=[0.5", "while parsing a flow sequence"),
        ("dataset.root=${nowhere}", "Interpolation key 'nowhere' not found"),
    ):
        assert printed(setting).endswith(f"error: {setting} can't be read: {reason}\n")


def test_exits_in_bf16_are_those_of_the_blocks(configured: Compose, spec: DataSpec) -> None:
    """What a ViT keeps in fp32 from unit to unit is rounded where a packet carries it."""
    network = make_network(configured("model=vit_tiny", "model.depth=3", "model.patch=4"), spec)
    cuts, cpu, images = network.names[1:3], torch.device("cpu"), torch.randn(4, *spec.image_shape)
    x, expected = images, []
    with torch.no_grad():
        for index in range(3):
            block = make_block(network, cuts, index, 4, cpu, torch.bfloat16)
            block.eval()
            output = block.forward(Packet(Tag(Kind.TEST, 1, 4), {"x": x, "label": torch.arange(4)}))
            with autocast(cpu, torch.bfloat16):
                expected.append(block.classifier.compute_loss(output.features, output.incoming).logits)
            x = output["x"]
        whole = EarlyExitNetwork(network, cuts, with_exits=True).eval()
        with autocast(cpu, torch.bfloat16):
            found, last = whole.exits(images), whole(images)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)) and torch.equal(last, expected[-1])


def test_a_loaded_network_predicts_at_every_exit(finished: Path) -> None:
    network = trainer.load(finished)
    assert not network.training and len(network.cut_points) == 2
    x = network.spec.normalize(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    exits = network.exits(x)
    assert [tuple(logits.shape) for logits in exits] == [(2, 10)] * 3
    assert torch.equal(exits[-1], network(x))
    saved = load_file(finished / "model.safetensors")
    names = {
        name
        for unit, module in network.modules_by_name().items()
        for name in (f"{unit}.{n}" for n in module.state_dict())
    }
    assert names == saved.keys()


def test_equal_models_are_equal_files(tmp_path: Path) -> None:
    files = []
    for number in range(8):
        directory = RunDirectory.create(str(tmp_path / str(number)), "")
        save_model(directory, [{"a": torch.ones(2), "b": torch.zeros(3)}], {"data": {}, "cut_points": ["a"]})
        files.append(directory.model.read_bytes())
    assert len(set(files)) == 1


def test_the_files_of_a_run(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    files = {"config.yaml", "partition.json", "metrics.jsonl", "model.safetensors", "console.log"}
    assert names == files | {"checkpoints"}
    kinds = [json.loads(line)["kind"] for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert kinds == ["epoch", "epoch", "summary"]


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="nowhere is no directory"):
        trainer.load("nowhere")
    with pytest.raises(SettingError, match="has no config.yaml; give the directory of a run that has ended"):
        trainer.load(tmp_path)


@pytest.mark.parametrize("name", ["config.yaml", "model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x00\xff{", b"{}"])
def test_a_damaged_file(finished: Path, name: str, content: bytes) -> None:
    (finished / name).write_bytes(content)
    with pytest.raises(SettingError, match="can't be read as the directory of a run"):
        trainer.load(finished)


def test_weights_of_another_network(finished: Path) -> None:
    from safetensors import safe_open

    with safe_open(finished / "model.safetensors", "pt") as file:
        metadata = file.metadata()
    weights = load_file(finished / "model.safetensors")
    weights["stem.conv.weight"] = torch.zeros(1)
    save_file(weights, finished / "model.safetensors", metadata)
    with pytest.raises(SettingError, match="stem.conv.weight does not fit"):
        trainer.load(finished)


FOREIGN = {
    "model": "{_target_: os.system, command: touch executed}",
    "local_loss": "{_target_: trainer.main.main}",
    "dataset": "{_target_: trainer.checkpoint.collector.remove, path: {_target_: trainer.data.npz.Path}}",
}


@pytest.mark.parametrize(
    ("reader", "group"),
    [*(("trainer.evaluate", group) for group in FOREIGN), *(("trainer.export", group) for group in list(FOREIGN)[:2])],
)
def test_reading_a_run_executes_nothing_of_others(
    reader: str, group: str, finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = yaml.safe_load((finished / "config.yaml").read_text())
    (finished / "config.yaml").write_text(yaml.safe_dump({**config, group: yaml.safe_load(FOREIGN[group])}))
    before = sorted(finished.rglob("*"))
    monkeypatch.chdir(finished)
    monkeypatch.setattr(sys, "argv", [reader, str(finished)])
    with pytest.raises(SystemExit) as ended:
        importlib.import_module(reader).main()
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.startswith(f"error: {group}._target_=") and error.count("\n") == 1
    assert "lies outside trainer's own models, data and local losses; add --trust" in error
    assert sorted(finished.rglob("*")) == before


@pytest.mark.parametrize("name", ["config.yaml", "model.safetensors"])
def test_readers_of_mutated_files_raise_their_own_error(finished: Path, name: str) -> None:
    original = (finished / name).read_bytes()
    begin = original[:4000]  # of the weights, the part that says what is where

    @settings(max_examples=60)
    @given(mutated(begin))
    def reads_or_refuses(data: bytes) -> None:
        (finished / name).write_bytes(data + original[len(begin) :])
        with contextlib.suppress(SettingError):
            trainer.load(finished)

    reads_or_refuses()
    (finished / name).write_bytes(b"[" * 5000)
    with pytest.raises(SettingError, match="can't be read as the directory of a run"):
        trainer.load(finished)
