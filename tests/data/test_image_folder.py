"""Images from a folder per class."""

import json
import shutil
import time

import numpy as np
import pytest
import torch
from PIL import Image

from trainer.clock import Clock
from trainer.data.image_folder import ImageFolder
from trainer.data.images import Pick
from trainer.data.source import ImageSource
from trainer.errors import SettingError
from trainer.packet import Kind
from trainer.plan import Plan

MEAN = STD = [0.5, 0.5, 0.5]
CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path):
    """Six training and four test images of two classes, of several sizes and formats; a class is a color."""
    sizes = [(40, 30), (33, 64), (20, 20)]
    for split, count in (("train", 3), ("val", 2)):
        for label, color in (("blue", (0, 0, 255)), ("red", (255, 0, 0))):
            (tmp_path / split / label).mkdir(parents=True)
            for i in range(count):
                suffix = "png" if i % 2 else "jpg"
                Image.new("RGB", sizes[i], color).save(tmp_path / split / label / f"{i}.{suffix}")
    return tmp_path


def load(folder, workers=0, **settings):
    return ImageFolder(str(folder), 16, workers=workers, **settings).load()


@pytest.mark.parametrize("workers", [0, 2])
def test_every_image_comes_once_with_its_label(folder, workers):
    images = load(folder, workers)
    spec = images.spec(MEAN, STD)
    assert (spec.train_size, spec.test_size, spec.num_classes, spec.image_shape) == (6, 4, 2, (3, 16, 16))
    plan = Plan(6, 4, 3, epochs=2)
    source = ImageSource(images, spec, [], plan, 0, CPU, clock=Clock(CPU))
    for _ in range(2):  # the workers live on from one pass to the next
        for phase in plan.phases():
            seen = 0
            for packet in source.packets(plan.tags(phase)):
                red = packet["image"][:, 0].float().mean((1, 2)) > 128
                assert torch.equal(packet["label"].bool(), red)
                assert packet["x"].shape == (3, 3, 16, 16) and packet["x"].abs().max() <= 1.01
                seen += packet.tag.count
            assert seen == (6 if phase.kind is Kind.TRAIN else 4)


def packets(folder, workers, seed=0):
    noise = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    for file in folder.glob("*/*/*.png"):
        Image.fromarray(noise).save(file)
    images, plan = load(folder, workers), Plan(6, 4, 2, epochs=2)
    source = ImageSource(images, images.spec(MEAN, STD), [], plan, seed, CPU)
    return [packet["x"] for phase in plan.phases() for packet in source.packets(plan.tags(phase))]


def test_workers_change_nothing_and_windows_follow_the_seed(folder):
    none, some, other = packets(folder, 0), packets(folder, 2), packets(folder, 0, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(none, some, strict=True))
    train, test = none[:3], none[3:5]
    assert not all(torch.equal(a, b) for a, b in zip(train, other[:3], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(test, other[3:5], strict=True))  # a test has no random windows


def test_an_early_end_stops_what_was_read_ahead(folder):
    images, plan = load(folder, 1), Plan(6, 4, 1, epochs=1)
    source = ImageSource(images, images.spec(MEAN, STD), [], plan, 0, CPU)
    steps = []
    for packet in source.packets(plan.tags(next(plan.phases()))):
        steps.append(packet.tag.step)
        if len(steps) == 2:
            plan.stop(3, evaluate=False)
    assert steps == [1, 2, 3]


def test_waiting_for_an_image_is_measured(folder):
    images = load(folder)
    clock = Clock(CPU)
    reading = images.on(CPU, clock)
    slow = type(reading.reader).__getitem__

    class Slow(type(reading.reader)):
        def __getitem__(self, request):
            time.sleep(0.05)
            return slow(self, request)

    reading.reader = Slow(16, 1.0)
    clock.start()
    assert len(list(reading.batches([Pick(Kind.TEST, torch.arange(2))]))) == 1
    lap = clock.lap(1).resolve()
    assert lap["wait_seconds"] == lap["image_wait_seconds"] >= 0.1
    assert lap["busy_seconds"] == lap["seconds"] - lap["wait_seconds"]


def test_a_run_shows_how_long_it_waited_for_images(folder, command):
    # Without workers: a process forked here would not leave by the os._exit that the fixture replaces.
    settings = ("dataset=image_folder", f"dataset.root={folder}", "dataset.image_size=16", "dataset.workers=0")
    sizes = ("model.depth=8", "model.width=8", "batch_size=1", "epochs=2", "threads=1")
    run = ("engine=sequential", "local_loss=greedy", "tracker=none", f"output_dir={folder / 'run'}")
    done = command(*settings, *sizes, *run)
    assert done.status == 0, done.err
    *_, epoch, summary = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert 0 < epoch["ranks"][0]["image_wait_seconds"] <= epoch["ranks"][0]["wait_seconds"]
    assert f"{100 * summary['image_wait']:.1f} % of a rank's time is waiting for images" in done.out


def test_validation_images_are_held_out(folder):
    images = load(folder).held_out(2)
    assert images.size(Kind.TRAIN) == 4 and images.size(Kind.TEST) == 2
    paths = [*images.files(Kind.TRAIN).paths, *images.files(Kind.TEST).paths]
    assert sorted(paths) == sorted(str(path) for path in (folder / "train").glob("*/*"))


def test_a_file_that_is_no_image_is_named(folder):
    (folder / "val" / "red" / "9.jpg").write_bytes(b"not an image")
    with pytest.raises(SettingError, match="9.jpg can't be read as an image"):
        list(load(folder, 1).on(CPU).batches([Pick(Kind.TEST, torch.arange(5))]))


@pytest.mark.parametrize(
    "change, settings, message",
    [
        (lambda f: None, {"train": "nothing"}, "dataset.root=.* nothing/CLASS/IMAGE"),
        (lambda f: (f / "val" / "green").mkdir(), {}, "green"),
        (lambda f: (f / "val" / "red").rename(f / "val" / "green"), {}, "the class green in only one of train and val"),
        (lambda f: None, {"workers": -1}, "dataset.workers=-1"),
        (lambda f: None, {"smallest_crop": 0.0}, "dataset.smallest_crop=0.0"),
    ],
)
def test_mistakes_are_named(folder, change, settings, message):
    change(folder)
    with pytest.raises(SettingError, match=message):
        load(folder, **settings)


def test_size_root_and_normalization_must_be_set(folder):
    with pytest.raises(SettingError, match="dataset.image_size=null"):
        ImageFolder(str(folder), None)
    with pytest.raises(SettingError, match="dataset.root is not set"):
        ImageFolder(None, 16)
    with pytest.raises(SettingError, match="dataset.mean and dataset.std must be set"):
        load(folder).spec(None, STD)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_pixels_that_would_be_cut_off_are_refused(folder, dtype):
    file = folder / "train" / "red" / "deep.tif"
    Image.fromarray(np.full((20, 20), 40_000, dtype)).save(file)
    images = load(folder).on(CPU)
    with pytest.raises(SettingError, match=f"{file} can't be read as an image: its pixels, .* have more than 8 bits"):
        list(images.batches([Pick(Kind.TRAIN, torch.arange(7), 0)]))


def test_hidden_folders_are_no_classes_and_one_class_is_none(folder):
    for split in ("train", "val"):
        (folder / split / ".ipynb_checkpoints").mkdir()
    assert load(folder).num_classes == 2
    for split in ("train", "val"):
        for file in (folder / split / "red").iterdir():
            file.unlink()
        (folder / split / "red").rmdir()
    with pytest.raises(SettingError, match="has only the class blue; a classifier needs at least 2 classes"):
        load(folder)
    shutil.rmtree(folder / "train" / "blue")
    with pytest.raises(SettingError, match="train has no folder of a class; it must hold train/CLASS/IMAGE"):
        load(folder)
