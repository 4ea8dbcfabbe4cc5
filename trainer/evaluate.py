"""``python -m trainer.evaluate <run directory>``: the accuracy of a trained model and of every early exit, on the test
images or, where the run held some out, on its validation images."""

import argparse

import torch

from trainer.assemble import load_images
from trainer.data.images import Pick, tested_on
from trainer.errors import TrainerError
from trainer.finished import FinishedRun
from trainer.local_losses.base import correct
from trainer.packet import Kind
from trainer.precision import DTYPES, autocast
from trainer.reporting.tables import exit_lines


@torch.inference_mode()
def evaluate(run_dir: str, device: str = "cpu", batch_size: int | None = None, trust: bool = False) -> list[float]:
    """The accuracy, 0 to 1, of every early exit of a run on the images it was tested on, and last of the whole model.

    Args:
        run_dir: the run directory.
        device: where to compute.
        batch_size: images at a time; that of the training unless given. It does not change the result.
        trust: see ``trainer.load``.

    Raises:
        SettingError: the run or its dataset can't be read.
    """
    run = FinishedRun.read(run_dir)
    network = run.network(trust).to(device)
    images = load_images(run.config["dataset"], trust).on(torch.device(device))
    count = images.size(Kind.TEST)
    size = batch_size or run.config["batch_size"]
    right = torch.zeros(len(network.cut_points) + 1, dtype=torch.float64)
    picks = (Pick(Kind.TEST, places) for places in torch.arange(count).split(size))
    for batch, labels in images.batches(picks):
        with autocast(torch.device(device), DTYPES[run.config["precision"]]):
            exits = network.exits(network.spec.normalize(batch.to(device)))
        right += torch.stack([correct(logits, labels.to(device)) for logits in exits]).cpu()
    return (right / count).tolist()


def main() -> None:
    """Print the accuracies."""
    parser = argparse.ArgumentParser(prog="python -m trainer.evaluate", description=__doc__)
    parser.add_argument("run_dir", help="the run directory")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="where to compute")
    parser.add_argument("--trust", action="store_true", help="build any class that the run names")
    options = parser.parse_args()
    try:
        if options.device == "cuda" and not torch.cuda.is_available():
            parser.error("--device cuda, but this machine has no GPU that torch can use")
        accuracies = evaluate(options.run_dir, options.device, trust=options.trust)
        run = FinishedRun.read(options.run_dir)
    except TrainerError as error:
        parser.exit(error.exit_status, f"error: {error}\n")
    print("\n".join(exit_lines(run.cut_points[: len(accuracies) - 1], accuracies, tested_on(run.config["dataset"]))))


if __name__ == "__main__":
    main()
