# Copyright (c) the monai_armed authors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.
"""The commands ``audit`` and ``erase``, with networks in every form in which people keep them."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import pandas as pd
import pytest
import torch
from audit_data import write_images
from monai.networks.nets import UNet
from torch import nn

from monai_armed.__main__ import main
from monai_armed.audit.networks import BundleParts, open_bundle
from monai_armed.bundle.model_file import read_record, write_model
from monai_armed.networks.erasure import ClusterEraser

SIZE = 24


class Reader(nn.Module):
    """Not trained: random features of colours, from which a tint leaks into the logit."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.pool(self.features(x)))


@pytest.fixture(scope="module", params=[True, False], ids=["planted", "clean"])
def images(request, tmp_path_factory):
    return request.param, write_images(tmp_path_factory.mktemp("images"), request.param)


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder, net, x = tmp_path_factory.mktemp("networks"), Reader().eval(), torch.rand(2, 3, SIZE, SIZE)
    dynamic = ({0: torch.export.Dim.AUTO},)
    torch.export.save(torch.export.export(net, (x,), dynamic_shapes=dynamic), folder / "net.pt2")
    unet = UNet(2, 3, 1, (4, 8), (2,)).eval()
    torch.export.save(torch.export.export(unet, (x,), dynamic_shapes=dynamic), folder / "unet.pt2")
    torch.jit.trace(net, x).save(str(folder / "net.ts"))
    (folder / "bundle" / "configs").mkdir(parents=True)
    (folder / "bundle" / "models").mkdir()
    linear = {"_target_": "torch.nn.Linear", "in_features": 3 * SIZE * SIZE, "out_features": 6}
    config = {"imports": ["$import torch"], "network_def": "$torch.nn.Sequential(@flat, @linear, @head)"}
    config |= {"flat": {"_target_": "torch.nn.Flatten"}, "linear": linear}
    config["head"] = {"_target_": "torch.nn.Linear", "in_features": 6, "out_features": 1}
    load = [{"_target_": "LoadImaged", "keys": "image", "ensure_channel_first": True}]
    load += [{"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": 0, "a_max": 255, "b_min": 0, "b_max": 1}]
    config["preprocessing"] = {"_target_": "Compose", "transforms": load}
    (folder / "bundle" / "configs" / "inference.json").write_text(json.dumps(config), encoding="utf-8")
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 6), nn.Linear(6, 1))
    nn.init.constant_(flat[2].weight, 1.0)
    flat[1].weight.data += torch.linspace(-1, 1, 6)[:, None] * 1e-2 + 5e-3
    torch.save(flat.state_dict(), folder / "bundle" / "models" / "model.pt")
    return folder


def audit(data, out, *options) -> dict:
    command = ["audit", "--data", str(data), "--subject_column", "subject", "--out", str(out), *map(str, options)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(command) == 0
    return json.loads((out / "audit.json").read_text(encoding="utf-8"))


def test_an_exported_program(images, networks, tmp_path):
    planted, data = images
    found = audit(data, tmp_path, "--network", networks / "net.pt2", "--image_size", SIZE, SIZE, "--attributes", "sex")
    assert found["reads_site"] is planted
    layers = {row["layer"] for row in found["tables"]["probes"]}
    assert layers == {"features", "pool"}
    erased = {row["layer"]: row for row in found["tables"]["erased"]}
    assert (erased["pool"]["erased"] > 0) is planted
    if planted:
        assert erased["pool"]["leak"] > erased["pool"]["chance_high"] > erased["pool"]["leak_erased"]
    assert [row["attribute"] for row in found["tables"]["leaks"]] == ["site", "sex"]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 4 and page.count("<table>") == 8
    assert pd.read_csv(tmp_path / "predictions.csv")["score"].notna().all()


def test_torchscript_gives_its_predictions(images, networks, tmp_path):
    planted, data = images
    found = audit(data, tmp_path, "--network", networks / "net.ts", "--image_size", SIZE, SIZE)
    assert found["reads_site"] is planted and "probes" not in found["tables"]
    assert found["facts"]["layers"].startswith("none: of TorchScript")


def test_a_bundle_of_the_zoo_with_its_weights_and_preprocessing(images, networks, tmp_path):
    planted, data = images
    found = audit(data, tmp_path, "--config_file", networks / "bundle" / "configs" / "inference.json")
    assert found["reads_site"] is planted
    assert {row["layer"] for row in found["tables"]["probes"]} == {"1"}


def test_weights_take_the_place_of_those_that_a_bundle_loads_also_of_other_sites(tmp_path):
    bundle = Path(__file__).parents[2] / "bundles" / "armed_cell_aec"
    config, record = bundle / "configs" / "inference.json", read_record(bundle / "models" / "model.pt")
    record["clusters"] = record["provenance"]["clusters"] = record["clusters"][:3]
    own = BundleParts([config], {"record": record}).part("network_def")
    write_model(own.state_dict(), record, tmp_path / "own.pt")
    found = open_bundle(BundleParts([config]), weights=tmp_path / "own.pt")
    assert found.num_clusters == 3 < open_bundle(BundleParts([config])).num_clusters
    assert all(torch.equal(value, found.state_dict()[name]) for name, value in own.state_dict().items())
    with pytest.raises(FileNotFoundError, match=r"there are no weights .*none\.pt"):
        open_bundle(BundleParts([config]), weights=tmp_path / "none.pt")


def test_a_network_that_segments(images, networks, tmp_path):
    _, data = images
    options = ["--segmentation", "--label_column", "mask", "--image_size", SIZE, SIZE]
    found = audit(data, tmp_path, "--network", networks / "unet.pt2", *options)
    assert {"dice", "low", "high"} <= set(found["tables"]["sites"][0]) and "calibration" not in found["tables"]
    assert {row["class"] for row in found["tables"]["probes"]} == {"0"}


def test_predictions_alone_as_logits_and_as_probabilities_in_json(images, networks, tmp_path):
    _, data = images
    audit(data, tmp_path / "net", "--network", networks / "net.ts", "--image_size", SIZE, SIZE)
    table = pd.read_csv(data).assign(prediction=pd.read_csv(tmp_path / "net" / "predictions.csv")["score"])
    table.to_csv(tmp_path / "logits.csv", index=False)
    table["prediction"] = 1 / (1 + (-table["prediction"]).map(lambda x: 2.718281828459045**x))
    rows = table.to_dict("records")
    (tmp_path / "p.json").write_text(json.dumps({"training": rows[:50], "testing": rows[50:]}), encoding="utf-8")
    found = [
        audit(data, tmp_path / f, "--predictions", tmp_path / f"{f}.{e}") for f, e in (("logits", "csv"), ("p", "json"))
    ]
    for name, rows in found[0]["tables"].items():
        pd.testing.assert_frame_equal(pd.DataFrame(rows), pd.DataFrame(found[1]["tables"][name]), rtol=1e-6)


@pytest.mark.parametrize(("form", "layer"), [("pt2", "pool"), ("ts", "1")])
def test_erase_writes_a_network_that_has_forgotten(images, networks, tmp_path, form, layer, capsys):
    planted, data = images
    if not planted:
        pytest.skip("nothing to erase")
    out = tmp_path / f"erased.{form}"
    given = ["--network", networks / "net.pt2", "--image_size", SIZE, SIZE]
    if form == "ts":
        given = ["--config_file", networks / "bundle" / "configs" / "inference.json"]
    command = ["erase", "--data", data, *given, "--layer", layer, "--out", out]
    assert main([str(word) for word in command]) == 0
    said = capsys.readouterr().out
    assert f"directions of {layer} are erased" in said
    before, after = map(float, re.search(r"on these images: (\S+) before, (\S+) after", said).groups())
    assert before != 0.5 and ("is gone with the site" in said) == (abs(after - 0.5) < abs(before - 0.5) / 2)
    assert ("columns before rows" in said) == (form == "pt2")
    found = audit(data, tmp_path / "audit", "--network", out, "--image_size", SIZE, SIZE)
    leak = found["tables"]["leaks"][0]
    assert leak["leak"] < leak["chance_high"]
    assert (form == "ts") == ("probes" not in found["tables"])
    eraser = ClusterEraser(8 if form == "pt2" else 6)
    eraser.load_state_dict(torch.load(tmp_path / "erased.eraser.pt", weights_only=True))
    assert 0 < eraser.rank <= 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--data", "none.csv", "--network", "net.ts"], "there is no data list none.csv"),
        (["--network", "net.ts"], "say which images: --data"),
        (["--data", "{data}"], "say what to audit: --network FILE"),
        (["--data", "{data}", "--network", "{nets}/none.pt2"], "there is no network"),
        (["--data", "{data}", "--network", "{nets}/bundle/models/model.pt"], "perhaps weights alone"),
        (["--data", "{data}", "--network", "{data}"], "perhaps weights alone or a pickled module"),
        (["--data", "{data}", "--network", "{nets}/net.ts"], "say how the network takes images: --image_size"),
        (["--data", "{data}", "--network", "{nets}/net.ts", "--site_column", "centre"], "has no column 'centre'"),
        (["--data", "{data}", "--network", "{nets}/net.ts", "--label_column", "sex"], "labels of .* must be 0 and 1"),
        (
            ["--data", "{data}", "--network", "{nets}/unet.pt2", "--image_size", "24", "24"],
            "of a network that segments say --segmentation",
        ),
        (
            ["--data", "{data}", "--network", "{nets}/net.pt2", "--image_size", "24", "24", "--layers", "heads"],
            "has no layer 'heads'",
        ),
        (
            ["--data", "{data}", "--network", "{nets}/net.ts", "--image_size", "24", "24", "--image_column", "sex"],
            "files of the data list are not there; first: .*",
        ),
        (["--data", "{data}", "--network", "{nets}/net.ts", "--site_column", "image"], "a site of its own"),
        (["--data", "{data}", "--config_file", "{nets}/none.json"], "there is no config file"),
        (["--predictions", "{data}"], "has no column 'prediction'"),
    ],
)
def test_what_is_wrong_is_said(images, networks, tmp_path, options, said, capsys):
    _, data = images
    options = [o.format(data=data, nets=networks) for o in options]
    assert main(["audit", "--out", str(tmp_path / "out"), *options]) == 2
    error = capsys.readouterr().err
    assert re.search(said, error), error
    assert not (tmp_path / "out").exists()


def test_an_image_that_cannot_be_read_is_named(images, networks, tmp_path, capsys):
    _, data = images
    rows = pd.read_csv(data).assign(image=lambda t: [str(data.parent / name) for name in t["image"]])
    rows.loc[7, "image"] = str(tmp_path / "broken.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    rows.to_csv(tmp_path / "list.csv", index=False)
    command = ["audit", "--data", str(tmp_path / "list.csv"), "--network", str(networks / "net.ts")]
    assert main([*command, "--image_size", "24", "24", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "broken.png cannot be read as the network's input" in said and len(said.splitlines()) == 1


def test_labels_that_are_numbers_of_a_scale_are_named_in_short(tmp_path, capsys):
    labels = "".join(f"{index / 7},{'ab'[index % 2]},{index}\n" for index in range(20))
    (tmp_path / "list.csv").write_text("label,site,prediction\n" + labels, encoding="utf-8")
    assert main(["audit", "--predictions", str(tmp_path / "list.csv"), "--out", str(tmp_path / "out")]) == 2
    assert re.search("got 20 different ones such as .* make classes first", capsys.readouterr().err)


def test_labels_may_be_true_and_false_and_a_training_part_is_told_of(tmp_path):
    rows = [{"prediction": k / 40, "label": bool(k % 3), "site": "ab"[k % 2]} for k in range(40)]
    listed = tmp_path / "list.json"
    listed.write_text(json.dumps({"training": [], "test": rows}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(["audit", "--predictions", str(listed), "--out", str(tmp_path / "out")]) == 0
    sites = json.loads((tmp_path / "out" / "audit.json").read_text())["tables"]["sites"]
    assert sites[0]["positive"] == sum(row["label"] for row in rows)
    listed.write_text(json.dumps({"training": rows[:20], "test": rows[20:]}))
    with pytest.warns(UserWarning, match="all parts are taken, 'training' too"):
        assert main(["audit", "--predictions", str(listed), "--out", str(tmp_path / "out")]) == 0
