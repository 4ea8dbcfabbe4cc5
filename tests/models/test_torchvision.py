"""Models of torchvision: their names, options and trained weights."""

import multiprocessing
import os

import pytest
import torch

from trainer.errors import SettingError
from trainer.models.torchvision import torchvision_model
from trainer.units import named_state, units_of


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"name": "resnet19"}, "model.name=resnet19 is no classification model of torchvision"),
        ({"name": None}, "model.name=None is no classification model"),
        ({"name": "fcn_resnet50"}, "model.name=fcn_resnet50 is no classification model"),
        ({"name": "resnet18", "weights": "BEST"}, "model.weights=BEST is unknown for resnet18; .* IMAGENET1K_V1"),
        ({"name": "resnet18", "weights": "BEST", "fetch": False}, "model.weights=BEST is unknown for resnet18"),
        ({"name": "vit_b_16", "options": {"image_size": 28}}, "model.options do not fit torchvision's vit_b_16: Input"),
        ({"name": "resnet18", "options": {"color": 1}}, "model.options do not fit torchvision's resnet18"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(SettingError, match=message):
        torchvision_model(num_classes=10, **arguments)


def test_trained_weights_are_used_with_a_new_last_layer(tmp_path, monkeypatch):
    from torchvision.models import MobileNet_V3_Small_Weights, get_model

    theirs = get_model("mobilenet_v3_small", weights=None, num_classes=1000)
    monkeypatch.setattr(MobileNet_V3_Small_Weights, "get_state_dict", lambda self, *args, **kwargs: theirs.state_dict())
    ours = named_state(units_of(torchvision_model("mobilenet_v3_small", 10, weights="DEFAULT")))
    expected = theirs.state_dict()
    different = {name for name, value in ours.items() if not torch.equal(value, expected[name])}
    assert different == {"classifier.3.weight", "classifier.3.bias"}
    assert ours["classifier.3.weight"].shape == (10, 1024)
    same = named_state(units_of(torchvision_model("mobilenet_v3_small", 1000, weights="IMAGENET1K_V1")))
    assert all(torch.equal(value, expected[name]) for name, value in same.items())


@pytest.mark.parametrize("name", ["resnet18", "googlenet"])
def test_a_model_whose_weights_come_from_elsewhere_needs_no_original(name, monkeypatch):
    """It is the same model, down to what the trained weights are made for."""
    from torchvision.models import GoogLeNet_Weights, ResNet18_Weights, get_model

    theirs = get_model(name, weights=None, num_classes=1000, **({"init_weights": False} if name == "googlenet" else {}))
    for weights in (GoogLeNet_Weights, ResNet18_Weights):
        monkeypatch.setattr(weights, "get_state_dict", lambda self, *args, **kwargs: theirs.state_dict())
    trained = units_of(torchvision_model(name, 10, weights="DEFAULT"))
    for weights in (GoogLeNet_Weights, ResNet18_Weights):
        monkeypatch.delattr(weights, "get_state_dict")
    empty = units_of(torchvision_model(name, 10, weights="DEFAULT", fetch=False))
    state = named_state(trained)
    with torch.no_grad():
        for key, value in named_state(empty).items():
            value.copy_(state[key])
    x = torch.randn(1, 3, 64, 64)
    pairs = zip(trained.items(), empty.items(), strict=True)
    found = expected = x
    for (one, unit), (other, copied) in pairs:
        assert one == other
        expected, found = unit.eval()(expected), copied.eval()(found)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("options, patches", [({}, 24), ({"image_size": 64}, 4)])
def test_a_vision_transformer_of_untaken_weights_takes_their_images(options, patches):
    with torch.device("meta"):
        units = units_of(torchvision_model("vit_b_16", 10, "IMAGENET1K_SWAG_E2E_V1", options, fetch=False))
    assert named_state(units)["encoder.pos_embedding"].shape == (1, patches**2 + 1, 768)


def test_of_several_processes_one_downloads(tmp_path, monkeypatch):
    from torchvision.models import get_model

    theirs = get_model("mobilenet_v3_small", weights=None, num_classes=1000).state_dict()
    log = tmp_path / "downloads"

    def download(url, file, *args, **kwargs):
        with log.open("a") as lines:
            lines.write(f"{url}\n")
        torch.save(theirs, f"{file}.part")
        os.replace(f"{file}.part", file)  # as torch does

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    processes = multiprocessing.get_context("fork")
    ranks = [
        processes.Process(target=torchvision_model, args=("mobilenet_v3_small", 10, "DEFAULT"), daemon=True)
        for _ in range(3)
    ]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
    assert [rank.exitcode for rank in ranks] == [0, 0, 0]
    (url,) = log.read_text().splitlines()
    assert url.startswith("https://download.pytorch.org/models/mobilenet_v3_small-")


def test_weights_that_cant_be_had_say_where_to_put_them(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()

    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(SettingError, match="model.weights=IMAGENET1K_V1 of resnet18 can't .*resnet18-f37072fd.pth"):
        torchvision_model("resnet18", 10, weights="DEFAULT")
