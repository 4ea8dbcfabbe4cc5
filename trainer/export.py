"""``python -m trainer.export <run directory>``: a trained network for use elsewhere.

Writes ``<name>.safetensors`` (the weights), ``<name>.pt2`` (a ``torch.export`` program) and, where the extra ``onnx``
is installed and asked for, ``<name>.onnx``; of the whole model, or of the part up to an early exit with its
classifier. The programs take normalized images ``(N, C, H, W)`` with any N and give logits ``(N, classes)``. Each file
is read back and compared with the model on random images before it counts.
"""

import argparse
import warnings
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from trainer.block import CLASSIFIERS
from trainer.errors import SettingError, TrainerError
from trainer.files import write_whole
from trainer.finished import EarlyExitNetwork, FinishedRun
from trainer.seeds import generator
from trainer.units import Units, named_state

FORMATS = ("safetensors", "pt2", "onnx")
IMAGES = 16
TOLERANCE = 1e-4
"""Largest difference between a logit of the model and of an exported program, relative to the largest logit."""


class UpToExit(nn.Module):
    """The units of a network up to a cut, with the local classifier that sits there."""

    def __init__(self, units: Mapping[str, nn.Module], classifier: nn.Module) -> None:
        super().__init__()
        self.units = nn.ModuleList(units.values())
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        """Normalized images ``(N, C, H, W)`` to logits ``(N, classes)``."""
        for unit in self.units:
            x = unit(x)
        logits: Tensor = self.classifier(x)
        return logits


def part_of(network: EarlyExitNetwork, exit_after: str | None) -> tuple[nn.Module, dict[str, Tensor]]:
    """The whole model, or the part up to an early exit, and its weights under their names in ``model.safetensors``.
    Raises ``SettingError`` where there is no such exit."""
    modules = network.modules_by_name()
    units = {name: module for name, module in modules.items() if not name.startswith(f"{CLASSIFIERS}.")}
    if exit_after is None:
        return network, _weights(units)
    if exit_after not in network.cut_points:
        known = ", ".join(network.cut_points) or "none"
        raise SettingError(f"--exit {exit_after} is no early exit of this run; it has {known}")
    names = list(units)
    head = f"{CLASSIFIERS}.{exit_after}"
    kept = {name: units[name] for name in names[: names.index(exit_after) + 1]}
    return UpToExit(kept, modules[head]).eval(), _weights({**kept, head: modules[head]})


def export(
    run_dir: str | Path, output: Path, formats: tuple[str, ...] = ("safetensors", "pt2"), exit_after: str | None = None,
    trust: bool = False,
) -> list[Path]:  # fmt: skip
    """Export the network of a run.

    Args:
        run_dir: the run directory.
        output: the folder to write to.
        formats: of ``FORMATS``.
        exit_after: the cut point of an early exit; None for the whole model.
        trust: see ``trainer.load``.

    Returns:
        The files.

    Raises:
        SettingError: the run can't be read, there is no such exit, or a file does not do what the model does.
    """
    run = FinishedRun.read(run_dir)
    network = run.network(trust)
    model, weights = part_of(network, exit_after)
    shape, draw = (IMAGES, *network.spec.image_shape), generator(0, "export")
    images = network.spec.normalize(torch.randint(256, shape, generator=draw, dtype=torch.uint8))
    name = "model" if exit_after is None else f"exit-{exit_after}"
    output.mkdir(parents=True, exist_ok=True)
    with torch.no_grad(), TemporaryDirectory(dir=output, prefix=".export-") as folder:
        for kind in formats:
            _WRITERS[kind](Path(folder) / f"{name}.{kind}", model, weights, images)
        for file in Path(folder).iterdir():  # of which large onnx files have more
            file.replace(output / file.name)
    return [output / f"{name}.{kind}" for kind in formats]


def _weights(units: Units) -> dict[str, Tensor]:
    """Copies, not tied to one another, as a safetensors file wants it."""
    dense = torch.contiguous_format
    return {name: value.clone(memory_format=dense) for name, value in named_state(units).items()}


def _safetensors(file: Path, model: nn.Module, weights: Mapping[str, Tensor], images: Tensor) -> None:
    from safetensors.torch import load_file, save

    write_whole(file, save(dict(weights), metadata={"format": "pt"}))
    read = load_file(file)
    if read.keys() != weights.keys() or any(not torch.equal(read[name], weights[name]) for name in read):
        raise SettingError(f"{file.name} does not hold the weights that were written to it; is the disk sound?")


def _pt2(file: Path, model: nn.Module, weights: Mapping[str, Tensor], images: Tensor) -> None:
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(model, (images,), dynamic_shapes=({0: batch},))
    with warnings.catch_warnings():
        for words in ("No complete tensor found in the group", "The given buffer is not writable"):
            warnings.filterwarnings("ignore", words)  # of torch to itself: each weight is a part of some storage
        try:
            torch.export.save(program, file)
        except RuntimeError as error:  # of torch's writer, which knows no OSError
            raise SettingError(f"{file.name} can't be written: {str(error).splitlines()[0]}") from error
        read = torch.export.load(file).module()
    _compare(file, model, images, read(images))
    _compare(file, model, images[:3], read(images[:3]))


def _onnx(file: Path, model: nn.Module, weights: Mapping[str, Tensor], images: Tensor) -> None:
    try:
        import onnxruntime
    except ImportError as error:
        raise SettingError("--format onnx needs the extra onnx; install it with pip install -e '.[onnx]'") from error
    names: dict[str, Any] = {"input_names": ["images"], "output_names": ["logits"]}
    torch.onnx.export(model, (images,), file, dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},), **names)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for some in (images, images[:3]):
        (logits,) = session.run(None, {"images": some.contiguous().numpy()})
        _compare(file, model, some, torch.from_numpy(logits))


def _compare(file: Path, model: nn.Module, images: Tensor, found: Tensor) -> None:
    expected = model(images)
    largest = float(expected.abs().max())
    if found.shape != expected.shape or not float((found - expected).abs().max()) <= TOLERANCE * max(largest, 1.0):
        raise SettingError(f"{file.name} does not compute what the model computes; please report this")


_WRITERS = {"safetensors": _safetensors, "pt2": _pt2, "onnx": _onnx}


def main() -> None:
    """Export, and name the files."""
    parser = argparse.ArgumentParser(prog="python -m trainer.export", description=__doc__.split("\n\n")[0])
    parser.add_argument("run_dir", help="the run directory")
    parser.add_argument("--output", type=Path, help="the folder to write to (RUN_DIR/export)")
    parser.add_argument("--exit", dest="exit_after", metavar="UNIT", help="up to the early exit after this unit")
    parser.add_argument("--format", action="append", choices=FORMATS, help="may be repeated (safetensors and pt2)")
    parser.add_argument("--trust", action="store_true", help="build any class that the run names")
    options = parser.parse_args()
    output = options.output or Path(options.run_dir) / "export"
    try:
        formats = tuple(options.format or ("safetensors", "pt2"))
        files = export(options.run_dir, output, formats, options.exit_after, options.trust)
    except TrainerError as error:
        parser.exit(error.exit_status, f"error: {error}\n")
    except OSError as error:
        parser.exit(2, f"error: --output {output} can't be written: {error.strerror}\n")
    print("\n".join(str(file) for file in files))


if __name__ == "__main__":
    main()
