"""Wrong uses of the command line, each with the sentence it must give.

Every one goes the real way, from the arguments to the exit status, and gives one line on standard error that names the
setting, its value and what would be right; none leaves a run directory behind.
"""

import os
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch

import trainer.launch
from tests.command_line import NO_SGD, TINY, CommandLine, Outcome, assert_one_sentence

ROOT = Path(__file__).parents[1]

SETTINGS = {
    # top level
    "epochs=0": "epochs=0 must be at least 1",
    "epochs=-3": "epochs=-3 must be at least 1",
    "epochs=many": "epochs=many: Value 'many' of type 'str' could not be converted to Integer",
    "batch_size=0": "batch_size=0 must be at least 1",
    "batch_size=65": "batch_size=65 is larger than the training data, which has 64 images",
    "batch_size=2.5": "batch_size=2.5: Value '2.5' of type 'float' could not be converted to Integer",
    "seed=-1": "seed=-1 must be a whole number from 0 to 2^63 - 1",
    "seed=9223372036854775808": "seed=9223372036854775808 must be a whole number from 0 to 2^63 - 1",
    "precision=fp64": "precision=fp64 is unknown; it is fp32 or bf16",
    "device=tpu": "device=tpu is unknown; it is auto, cpu or cuda",
    "threads=0": "threads=0 must be auto or a whole number of at least 1",
    "threads=all": "threads=all must be auto or a whole number of at least 1",
    "threads=true": "threads=true must be auto or a whole number of at least 1",
    "max_steps=0": "max_steps=0 must be at least 1",
    "timeout_seconds=0": "timeout_seconds=0.0 must lie between 1 and 1e+09",
    "on_nan=ignore": "on_nan=ignore is unknown; it is stop or skip",
    "update.accumulate=3": "update.accumulate=3 must divide batch_size=8: every step has as many images",
    "log.every_steps=0": "log.every_steps=0 must be at least 1",
    "eval.every_epochs=0": "eval.every_epochs=0 must be at least 1",
    "checkpoint.keep=0": "checkpoint.keep=0 must be at least 1",
    "checkpoint.every_steps=0": "checkpoint.every_steps=0 must be at least 1",
    "checkpoint.every_epochs=-1": "checkpoint.every_epochs=-1 must be at least 1",
    "resume=nowhere": "resume=nowhere is neither a run with a whole checkpoint nor a checkpoint; it must be ",
    "init_from=nowhere": "init_from=nowhere must be a .safetensors file or the directory of a run that has ended",
    "dry_run=perhaps": "dry_run=perhaps: Value 'perhaps' is not a valid bool",
    "=3": "=3 can't be read as OPTION=VALUE: no spaces around the =",
    "+epoch=3": "epoch is no option; python -m trainer.main --help lists them all",
    "epoch=3": "epoch is no option; python -m trainer.main --help lists them all",
    "checkpoint.often=1": "checkpoint.often is no option",
    "~seed": "seed can't be left out of the configuration; give it a value",
    "seed=1,2": "seed=1,2 gives several values; add --multirun to run with one after another, or write a list as seed",
    # groups
    "model=resnet33": "model=resnet33 is unknown; it is one of ",
    "dataset=mnist": "dataset=mnist is unknown; it is one of ",
    "local_loss=backprop": "local_loss=backprop is unknown; it is one of ",
    "engine=magic": "engine=magic is unknown; it is one of ",
    "optimizer=lion": "optimizer=lion is unknown; it is one of ",
    "scheduler=stairs": "scheduler=stairs is unknown; it is one of ",
    "tracker=mlflow": "tracker=mlflow is unknown; it is one of ",
    "partition=random": "partition=random is unknown; it is one of ",
    "model._target_=no.such.thing": "model._target_=no.such.thing can't be imported",
    "model._target_=trainer.models.resnet.nothing": "model._target_=trainer.models.resnet.nothing can't be imported",
    "model._target_=print": "model._target_=print can't be imported",
    "model._target_=null": "model has no _target_; choose one of the files in conf/model/",
    "model._target_=torch.nn.Linear": "model does not fit torch.nn.Linear: ",
    "model.depth=9": "model.depth=9 is no CIFAR ResNet; the depth is 6 n + 2: 20, 32, 44, 56, 110",
    "model.depth=eight": "model.depth=eight must be a whole number",
    "model.width=0": "model.width=0 must be at least 1",
    # data
    "dataset.image_size=big": "dataset.image_size=big must be a whole number or null",
    "dataset.validation=0.1": "dataset.validation=0.1 must be a whole number or null",
    "dataset.mixup=some": "dataset.mixup=some must be a number or null",
    "dataset.mean=0.5": "dataset.mean=0.5 must be a list or null",
    "dataset.image_size=0": "dataset.image_size=0 must be at least 1",
    "dataset.train_size=0": "dataset.train_size=0 must be at least 1",
    "dataset.num_classes=1": "dataset.num_classes=1 must be at least 2",
    "dataset.noise=2": "dataset.noise=2 must lie between 0 and 1",
    "dataset.noise=loud": "dataset.noise=loud must be a number",
    "dataset.mean=[0.5]": "dataset.mean=[0.5] has 1 values; the images have 3 channels",
    "dataset.std=[1,1,0]": "dataset.std=[1, 1, 0] must be above 0",
    "dataset.augment=[{_target_: no.such}]": "dataset.augment[0]._target_=no.such can't be imported",
    "dataset.rand_augment=-1": "dataset.rand_augment=-1 must be at least 0",
    "dataset.random_erasing=2": "dataset.random_erasing=2 must lie between 0 and 1",
    "dataset.augment=[{_target_: trainer.data.augment.RandomErasing, probability: 1, area: [0.5]}]":
        "area=[0.5], aspect=0.3 of RandomErasing must be two rising shares of at most 1, and above 0",
    "dataset.augment=[flip]": "dataset.augment[0] has no _target_; name a class as dataset.augment[0]._target_",
    # cuts
    "partition.points=[layer9]": "partition.points=[layer9]: the model has no unit layer9; its units are stem, ",
    "partition.blocks=2": "partition.blocks=2 contradicts the 2 cut points of partition.points; leave one of them out",
    "dataset.mean=[a,b,c]": "dataset.mean[0]=a must be a number",
    "dataset.std=[1,nan,1]": "dataset.std[1]=nan must be a number",
    "partition.cpu.gflops=nan": "partition.cpu.gflops=nan must be a number",
    "update.clip_norm=nan": "update.clip_norm=nan must be above 0, or null",
    # optimizer, scheduler, engine, tracker
    "optimizer.lr=-1": "optimizer: torch.optim.SGD refuses these settings: Invalid learning rate: -1",
    "optimizer.lr=nan": "optimizer.lr=nan must be a number",
    "optimizer.lr=fast": "optimizer.lr=fast must be a number",
    "+optimizer.speed=1": "optimizer does not fit torch.optim.SGD: got an unexpected keyword argument 'speed'",
    "scheduler.warmup_epochs=-1": "scheduler.warmup_epochs=-1 must be at least 0",
    "scheduler.warmup_start=-1": "scheduler.warmup_start=-1 must lie between 0 and 1",
    "+tracker.mode=loud": "tracker does not fit trainer.tracking.none.NoTracker: ",
    "+engine.queue_depth=2": "engine does not fit trainer.engines.local_learning.Sequential: ",
}  # fmt: skip


if not torch.cuda.is_available():
    SETTINGS["device=cuda"] = "device=cuda, but this machine has no GPU that torch can use"


@pytest.mark.parametrize("override", SETTINGS)
def test_settings(override: str, command: CommandLine, tmp_path: Path) -> None:
    outcome = command(*TINY, override, f"output_dir={tmp_path}/run", cwd=tmp_path)
    assert_one_sentence(outcome, SETTINGS[override])
    assert not list(tmp_path.iterdir())


WITHOUT_POINTS = tuple(setting for setting in TINY if not setting.startswith("partition."))

OTHER = {
    ("partition.blocks=two",): "partition.blocks=two must be a whole number or null",
    ("partition.points=stem",): "partition.points=stem must be a list or null",
    ("partition=null",): "a group of settings can't be null; choose one of its files in conf/",
    ("~partition",): "partition has no _target_; choose one of the files in conf/partition/, or name a class as ",
    ("partition.blocks=6",): "partition.blocks=6 is not possible: the model has 5 units, so 1 to 5 blocks",
    ("on_nan=skip", "update.average=0.9", "partition.blocks=2"): "on_nan=skip goes with neither update.accumulate nor ",
    ("cuda_graphs=true", "partition.blocks=2"): "cuda_graphs=true needs a GPU, and this run is on CPUs; set cuda_gr",
    ("cudnn_benchmark=true", "deterministic=true"): "cudnn_benchmark=true does not go with deterministic=true: which ",
    ("cuda_graphs=true", "update.accumulate=2"): "cuda_graphs=true does not go with update.accumulate; leave one of ",
    ("engine=pipeline",): "engine=pipeline needs at least 2 ranks, but there is one; start it with torchrun ",
    ("engine=ppll", "engine.queue_depth=0", "partition.blocks=2"): "engine.queue_depth=0 must be at least 1",
    ("tracker=wandb", "tracker.mode=loud", "partition.blocks=2"): "tracker.mode=loud is unknown; it is auto, online",
    ("local_loss=dgl", "local_loss.hidden_layers=-1"): "local_loss.hidden_layers=-1 must be at least 0",
    ("local_loss=man", "local_loss@local_loss.base=dgl", "local_loss.base.hidden_layers=-1"):
        "local_loss.base.hidden_layers=-1 must be at least 0",
    ("local_loss=dgl", "batch_size=1"): "batch_size=1 gives one image at a time, which is too few for the batch",
    ("local_loss=man", "local_loss.base=infopro"): "local_loss.base=infopro is no local loss; choose one of the ",
    ("local_loss=man", "local_loss.base=null"): "local_loss.base=null is no local loss; choose one of the fi",
    ("local_loss=infopro", "local_loss.reconstruction=abc"): "local_loss.reconstruction=abc must be a list",
    ("optimizer=adam", "optimizer.betas=[0.9]"): "optimizer: torch.optim.Adam refuses these settings: ",
    ("optimizer._target_=torch.optim.LBFGS", *NO_SGD): "optimizer._target_=torch.optim.lbfgs.LBFGS can't step with gra",
    ("partition=profiled", "partition.repeats=0"): "partition.repeats=0 must be at least 1",
    ("dataset.channels=2", "dataset.rand_augment=1", "dry_run=true"): "RandAugment distorts images with 1 or",
    ("partition.cpu.gflops=0",): "partition.cpu.gflops=0 must be above 0",
    ("partition.cpu=5",): "partition.cpu=5 must be names with values",
    ("partition.cuda=null",): "partition.cuda=null must be names with values",
}  # fmt: skip


@pytest.mark.parametrize("overrides", OTHER)
def test_settings_that_go_together(overrides: tuple[str, ...], command: CommandLine, tmp_path: Path) -> None:
    outcome = command(*WITHOUT_POINTS, *overrides, f"output_dir={tmp_path}/run", cwd=tmp_path)
    assert_one_sentence(outcome, OTHER[overrides])


def test_a_refusal_stays_one_when_the_launcher_starts_again(command: CommandLine, tmp_path: Path) -> None:
    settings = (*TINY, f"output_dir={tmp_path}/run")
    assert command(*settings, "epochs=1").status == 0
    before = (tmp_path / "run/metrics.jsonl").read_text()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = str(listener.getsockname()[1])
    launcher = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    again = {**launcher, "TORCHELASTIC_RESTART_COUNT": "1", "TORCHELASTIC_RUN_ID": "none"}
    outcome = command(*settings, "resume=never", environment=tuple(again.items()))
    assert_one_sentence(outcome, "resume=never, but output_dir=")
    assert (tmp_path / "run/metrics.jsonl").read_text() == before


def test_a_run_can_not_end_before_what_it_has_done(command: CommandLine, tmp_path: Path) -> None:
    settings = (*TINY, f"output_dir={tmp_path}/run")
    assert command(*settings, "max_steps=12").status == 0
    outcome = command(*settings, "epochs=1", "resume_strict=false")
    assert_one_sentence(outcome, "the run goes on after step 12, but its 1 epochs end with step 8; set epochs higher")


def test_a_sweep_says_which_job_begins(command: CommandLine, tmp_path: Path) -> None:
    outcome = command("--multirun", *TINY, "seed=1,2", "dry_run=true", f"hydra.sweep.dir={tmp_path}", cwd=tmp_path)
    jobs = [line for line in outcome.out.splitlines() if line.startswith("job ")]
    assert [job.split(":")[0] for job in jobs] == ["job 0 of the sweep", "job 1 of the sweep"]
    assert " seed=1 " in jobs[0] and " seed=2 " in jobs[1]


def test_a_runs_config_is_no_configuration(command: CommandLine, tmp_path: Path) -> None:
    assert command(*TINY, f"output_dir={tmp_path}/run", "max_steps=1", "seed=3").status == 0
    first, *_ = (tmp_path / "run/config.yaml").read_text().splitlines()
    assert first.startswith("# python -m trainer.main engine=sequential ") and first.endswith(" max_steps=1 seed=3")
    # In a process of its own, since such a configuration also sets up Hydra's logging.
    wrong = [sys.executable, "-m", "trainer.main", "--config-path", f"{tmp_path}/run", "--config-name", "config"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HYDRA_FULL_ERROR": "0"}
    ended = subprocess.run(wrong, cwd=tmp_path, env=environment, capture_output=True, text=True)
    outcome = Outcome(ended.returncode, ended.stdout, ended.stderr)
    assert_one_sentence(outcome, "--config-path and --config-name give a configuration of another kind")


def test_a_sweep_has_a_directory_for_each_job(command: CommandLine, tmp_path: Path) -> None:
    outcome = command("--multirun", *TINY, "seed=1,2", f"output_dir={tmp_path}/run", "dry_run=true", cwd=tmp_path)
    assert_one_sentence(outcome, "can't be set in a sweep, whose jobs have a directory each; set hydra.sweep.dir ")


def test_the_run_directory_is_not_hydras(command: CommandLine, tmp_path: Path) -> None:
    outcome = command(*TINY, f"hydra.run.dir={tmp_path}/run", "dry_run=true", cwd=tmp_path)
    assert_one_sentence(outcome, f"hydra.run.dir={tmp_path}/run is not where a run writes; set output_dir instead")


def test_half_an_environment(command: CommandLine, tmp_path: Path) -> None:
    outcome = command(*TINY, environment=(("RANK", "0"),), cwd=tmp_path)
    says = "the environment sets some of torchrun's variables but not WORLD_SIZE, MASTER_ADDR, MASTER_PORT"
    assert_one_sentence(outcome, says)


def test_a_store_that_nobody_opens(
    command: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer.launch, "CONNECT_TIMEOUT", timedelta(seconds=0.2))
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = str(nobody.getsockname()[1])
        place = (("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", port))
        outcome = command(*TINY, environment=(("RANK", "1"), ("WORLD_SIZE", "2"), *place), cwd=tmp_path)
    assert_one_sentence(outcome, f"MASTER_ADDR=127.0.0.1 and MASTER_PORT={port}, where rank 1 can't reach what ")


def test_a_run_directory_that_can_not_be_made(command: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    outcome = command(*TINY, f"output_dir={tmp_path}/file/run")
    assert_one_sentence(outcome, f"output_dir={tmp_path}/file/run")
