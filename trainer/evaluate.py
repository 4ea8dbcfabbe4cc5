"""``python -m trainer.evaluate <run directory>``: the accuracy of a trained model and of every early exit, on the test
images or, where the run held some out, on its validation images."""

import argparse
import re
from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from trainer.assemble import data_spec, load_images
from trainer.data.images import Pick, tested_on
from trainer.errors import SettingError, TrainerError
from trainer.finished import FinishedRun
from trainer.local_losses.base import correct
from trainer.packet import Kind
from trainer.precision import DTYPES, autocast
from trainer.reporting.tables import exit_lines


def evaluate(
    run_dir: str,
    device: str = "cpu",
    batch_size: int | None = None,
    trust: bool = False,
    dataset: Mapping[str, Any] | None = None,
) -> list[float]:
    """The accuracy, 0 to 1, of every early exit of a run on the images it was tested on, and last of the whole model.

    Args:
        run_dir: the run directory.
        device: where to compute.
        batch_size: images at a time; that of the training unless given. It does not change the result.
        trust: see ``trainer.load``.
        dataset: settings of the dataset that differ from the run's: ``{"root": "/data"}`` where the images have moved,
            ``{"validation": 0}`` for the test images where the run held validation images out.

    Raises:
        SettingError: the run or its dataset can't be read, or the images are not what the network takes.
    """
    return accuracies(FinishedRun.read(run_dir).on_images(dataset or {}), device, batch_size, trust)


@torch.inference_mode()
def accuracies(run: FinishedRun, device: str, batch_size: int | None = None, trust: bool = False) -> list[float]:
    """As ``evaluate``, for a run that has been read."""
    network = run.network(trust).to(device)
    images = load_images(run.config["dataset"], trust)
    found = data_spec(run.config["dataset"], images)
    for what, here, trained in (
        ("images of shape", found.image_shape, run.spec.image_shape),
        ("a number of classes of", found.num_classes, run.spec.num_classes),
    ):
        if here != trained:
            raise SettingError(f"the dataset has {what} {here}, but the network was trained for {trained}")
    images = images.on(torch.device(device))
    count = images.size(Kind.TEST)
    size = batch_size or run.config["batch_size"]
    right = torch.zeros(len(network.cut_points) + 1, dtype=torch.float64)
    picks = (Pick(Kind.TEST, places) for places in torch.arange(count).split(size))
    for batch, labels in images.batches(picks):
        with autocast(torch.device(device), DTYPES[run.config["precision"]]):
            exits = network.exits(network.spec.normalize(batch.to(device)))
        right += torch.stack([correct(logits, labels.to(device)).sum() for logits in exits]).cpu()
    return (right / count).tolist()


def main() -> None:
    """Print the accuracies."""
    parser = argparse.ArgumentParser(prog="python -m trainer.evaluate", description=__doc__)
    parser.add_argument("run_dir", help="the run directory")
    parser.add_argument(
        "dataset",
        nargs="*",
        metavar="dataset.OPTION=VALUE",
        help="settings of the dataset that differ from the run's: dataset.root=/data where the images have moved, "
        "dataset.validation=0 for the test images where the run held validation images out",
    )
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where to compute")
    parser.add_argument("--trust", action="store_true", help="build any class that the run names")
    options = parser.parse_intermixed_args()  # settings and options in any order
    for setting in options.dataset:
        if not re.match(r"dataset\.[\w.]+=", setting):
            parser.error(f"{setting} can't be read as dataset.OPTION=VALUE")
    try:
        settings = OmegaConf.to_container(OmegaConf.from_dotlist(options.dataset), resolve=True)
    except (YAMLError, OmegaConfBaseException) as error:
        parser.error(f"{' '.join(options.dataset)} can't be read: {str(error).splitlines()[0]}")
    assert isinstance(settings, dict)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda, but this machine has no GPU that torch can use")
    try:
        run = FinishedRun.read(options.run_dir).on_images(settings.get("dataset", {}))
        reached = accuracies(run, options.device, trust=options.trust)
    except TrainerError as error:
        parser.exit(error.exit_status, f"error: {error}\n")
    print("\n".join(exit_lines(run.cut_points[: len(reached) - 1], reached, tested_on(run.config["dataset"]))))


if __name__ == "__main__":
    main()
