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

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from monai.data import DataLoader, Dataset

from monai_armed.engines import PrepareBatchCluster
from monai_armed.networks.erasure import ClusterEraser
from monai_armed.networks.nets import ARMED, CNN, ClusterInput, ZPredictor
from monai_armed.studies.ad_mri.saliency import draw_images, saliency_scores, score_saliency
from monai_armed.studies.ad_mri.saliency_maps import SaliencyMaps, saliency_layer

SIZE = 24
REGION = (slice(6, 12), slice(14, 20))


class Looks(torch.nn.Module):
    """A network whose logit is how rough the region is, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x)[..., REGION[0], REGION[1]].square().mean((1, 2, 3))[:, None]


def small_cnn() -> CNN:
    return CNN((1, SIZE, SIZE), channels=(4, 8, 8), dense_channels=8)


def loader(number: int = 4, regions: bool = True) -> DataLoader:
    rng = np.random.default_rng(0)
    roi = np.zeros((1, SIZE, SIZE))
    roi[0][REGION] = 1
    items = []
    for k in range(number):
        image = np.zeros((1, SIZE, SIZE), np.float32)
        image[0, 2:-2, 2:-2] = rng.uniform(0.5, 1, (SIZE - 4, SIZE - 4))
        names = {"subject": f"s{k // 2}", "site": f"site {k % 2}", "manufacturer": "made"}
        items.append({"image": image, "label": float(k % 2), "cluster": -1 if k == 3 else k % 2, **names})
        items[-1] |= {"roi": roi} if regions else {}
    return DataLoader(Dataset(items), batch_size=3)


def test_occlusion_finds_what_the_network_looks_at(tmp_path, capsys):
    torch.manual_seed(0)
    maps = SaliencyMaps(Looks(), PrepareBatchCluster(pass_cluster=False), 4.0)
    table = score_saliency(maps, {"seen": loader(), "unseen": loader(2)}, tmp_path)
    assert len(table) == (4 + 2) * 2 * 3
    mean = table[table["method"] == "occlusion"].groupby("network")[["share", "rank"]].mean()
    assert mean.loc["even", "rank"] == 0.5 and mean.loc["even", "share"] == pytest.approx(36 / 400)
    assert mean.loc["trained", "share"] > 0.6 and mean.loc["trained", "rank"] > 0.99
    saved = pd.read_csv(tmp_path / "saliency.csv")
    pd.testing.assert_frame_equal(saved, table, check_dtype=False)
    assert {p.name for p in tmp_path.glob("*.png")} == {"saliency_grad_cam.png", "saliency_occlusion.png"}
    assert "occlusion" in capsys.readouterr().out


def test_figures_for_the_comparison(tmp_path):
    torch.manual_seed(0)
    maps = SaliencyMaps(Looks(), PrepareBatchCluster(pass_cluster=False), 4.0)
    table = score_saliency(maps, {"seen": loader()}, tmp_path)
    rows = pd.DataFrame(saliency_scores(table, "fixed"))
    own = rows[rows["prediction"] == "fixed"].set_index("metric")["value"]
    assert set(own.index) == {f"{m}_{k}" for m in ("grad_cam", "occlusion") for k in ("share", "rank")} | {
        "grad_cam_empty"
    }
    trained = table[(table["network"] == "trained") & (table["method"] == "occlusion")]
    assert own["occlusion_share"] == pytest.approx(trained.groupby("subject")["share"].mean().mean())
    assert set(rows["model"].dropna()) == {"untrained network", "even saliency"}
    assert not rows.duplicated(["partition", "metric", "prediction", "model"]).any()


def test_maps_are_drawn_where_no_region_is_known(tmp_path, capsys):
    maps = SaliencyMaps(small_cnn(), PrepareBatchCluster(pass_cluster=False), 8.0)
    table = score_saliency(maps, {"seen": loader(regions=False), "unseen": loader(2, regions=False)}, tmp_path)
    assert table.empty and saliency_scores(table, "fixed") == []
    assert {p.name for p in tmp_path.iterdir()} == {"saliency_grad_cam.png", "saliency_occlusion.png"}
    said = capsys.readouterr().out
    assert "not scored: the true regions are known of a simulated study alone" in said and str(tmp_path) in said


def test_without_images_nothing_is_drawn(tmp_path, capsys):
    maps = SaliencyMaps(small_cnn(), PrepareBatchCluster(pass_cluster=False), 8.0)
    table = score_saliency(maps, {"seen": DataLoader(Dataset([]), batch_size=2)}, tmp_path)
    assert table.empty and not list(tmp_path.iterdir()) and "no image" in capsys.readouterr().out


def test_fixed_effects_have_the_maps_of_the_wrapped_network():
    torch.manual_seed(0)
    network = small_cnn().eval()
    armed = ARMED(network, 2, input_shape=(1, SIZE, SIZE), adversary=None)
    batch = next(iter(loader()))
    alone = SaliencyMaps(network, PrepareBatchCluster(pass_cluster=False), 8.0)
    fixed = SaliencyMaps(armed, PrepareBatchCluster(effects="fixed"), 8.0)
    for mine, theirs in ((fixed, alone), (fixed.untrained(1), alone.untrained(1))):
        for method, found in mine(batch).items():
            assert found.shape == (3, SIZE, SIZE) and (found >= 0).all() and np.ptp(found) > 0
            np.testing.assert_allclose(found, theirs(batch)[method], rtol=1e-4, atol=1e-6)
    assert fixed.layer == f"network.{alone.layer}"
    assert not np.allclose(alone(batch)["occlusion"], alone.untrained(1)(batch)["occlusion"])
    assert armed.network is network and not network._forward_hooks


def test_an_untrained_network_has_nothing_erased():
    torch.manual_seed(0)
    network, batch = small_cnn().eval(), next(iter(loader()))
    armed = ARMED(network, 2, input_shape=(1, SIZE, SIZE), adversary=None, erasers={"dense": ClusterEraser(8)})
    torch.nn.init.normal_(armed.erasers[0].matrix)
    untrained = SaliencyMaps(armed, PrepareBatchCluster(effects="fixed"), 8.0).untrained(1)
    alone = SaliencyMaps(network, PrepareBatchCluster(pass_cluster=False), 8.0).untrained(1)
    np.testing.assert_allclose(untrained(batch)["occlusion"], alone(batch)["occlusion"], rtol=1e-4, atol=1e-6)


def test_an_unknown_cluster_is_inferred_from_the_whole_image():
    class Guesses(torch.nn.Module):
        def forward(self, x):
            assert x.mean() > 0.4  # never a lone occluded image of a batch
            calls.append(len(x))
            return torch.stack([x.mean((1, 2, 3)), -x.mean((1, 2, 3))], dim=1)

    calls: list[int] = []
    torch.manual_seed(0)
    network = ClusterInput(small_cnn(), 2, layer="dense.0").attach_z_predictor(ZPredictor(Guesses(), 2))
    maps = SaliencyMaps(network, PrepareBatchCluster(), 8.0)
    first, last = list(loader())
    maps(first)
    assert not calls
    assert np.ptp(maps(last)["occlusion"]) > 0 and calls == [1]


@pytest.mark.parametrize("cell, layer", [(1.0, "blocks.0"), (2.0, "blocks.1"), (3.9, "blocks.1"), (4.0, "blocks")])
def test_layer_is_the_last_one_with_small_cells(cell, layer):
    network = small_cnn().eval()
    assert saliency_layer(network, torch.zeros(2, 1, SIZE, SIZE), cell) == layer


def test_no_layer_with_cells_that_small():
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3, stride=2), torch.nn.Flatten())
    with pytest.raises(ValueError, match="no layer of Sequential has cells of 1 pixels or less"):
        saliency_layer(network, torch.zeros(1, 1, 8, 8), 1.0)


def test_images_are_drawn_by_the_seed_alone():
    images = [f"image {k}" for k in range(30)]
    chosen = draw_images(images, 10, seed=1)
    assert chosen == draw_images(images, 10, seed=1) != draw_images(images, 10, seed=2)
    assert len(set(chosen)) == 10 and chosen == sorted(chosen, key=images.index)
    assert draw_images(images, 50) == images and draw_images([], 5) == []
