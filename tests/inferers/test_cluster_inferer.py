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

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.inferers import (
    PatchInferer,
    SaliencyInferer,
    SliceInferer,
    SlidingWindowInferer,
    SlidingWindowInfererAdapt,
    SlidingWindowSplitter,
    sliding_window_inference,
)
from monai.visualize import OcclusionSensitivity
from torch import nn

from monai_armed.engines import PrepareBatchCluster
from monai_armed.inferers import ClusterInferer
from monai_armed.networks import ARMED

CLUSTERS = 3


@pytest.fixture
def network() -> ARMED:
    """Every window's prediction depends on nothing but its own pixels and its image's cluster."""
    torch.manual_seed(0)
    base = nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    net = ARMED(base, {"site": CLUSTERS, "subject": 5}, (1, 8, 8))
    for slopes in net.random_slopes.values():
        nn.init.normal_(slopes.effects.loc)
    return net.eval()


IMAGES = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(1))
SITE, SUBJECT = torch.tensor([0, 2]), torch.tensor([4, 1])
CUTTERS = {
    # one of them has as many windows in a batch as there are images
    "two windows at a time": SlidingWindowInferer((8, 8), sw_batch_size=2),
    "three windows, overlapping": SlidingWindowInferer((8, 8), sw_batch_size=3, overlap=0.5),
    "adapting": SlidingWindowInfererAdapt((8, 8), sw_batch_size=2),
    "patches": PatchInferer(SlidingWindowSplitter((8, 8)), batch_size=3),
}
GIVEN = {
    "index": SITE,
    "one index": SITE[1:],
    "soft": torch.tensor([[0.2, 0.8, 0.0], [0.0, 0.5, 0.5]]),
    "factors": {"site": SITE, "subject": SUBJECT},
    "not known": torch.tensor([-1, 1]),
    "none": None,
}


@pytest.mark.parametrize("cutter", CUTTERS)
@pytest.mark.parametrize("given", GIVEN)
@torch.no_grad()
def test_windows_have_their_images_cluster(network, cutter, given):
    cluster = GIVEN[given]
    found = ClusterInferer(CUTTERS[cutter])(IMAGES, network, cluster=cluster)
    torch.testing.assert_close(found, network(IMAGES, cluster))


@pytest.mark.parametrize("windows", [1, 4])
@torch.no_grad()
def test_slices_of_volumes_have_their_volumes_cluster(network, windows):
    volumes = torch.randn(2, 1, 8, 8, 5, generator=torch.Generator().manual_seed(2))
    inferer = ClusterInferer(SliceInferer(spatial_dim=2, roi_size=(8, 8), sw_batch_size=windows, overlap=0))
    for options in ({"cluster": SITE}, {"cluster": SITE, "effects": "fixed"}):
        wanted = torch.stack([network(volumes[..., k], **options) for k in range(5)], dim=-1)
        torch.testing.assert_close(inferer(volumes, network, **options), wanted)


def test_saliency_is_that_of_the_images_cluster():
    torch.manual_seed(0)
    base = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    net = ARMED(base, CLUSTERS, (1, 16, 16)).eval()
    nn.init.normal_(net.random_effects.loc)
    saliency = SaliencyInferer("GradCAM", "network.0", 1)
    found = ClusterInferer(saliency)(IMAGES, net, cluster=SITE)
    for image, cluster, own in zip(IMAGES.split(1), SITE.split(1), found.split(1)):
        torch.testing.assert_close(own, saliency(image, net, cluster=cluster))
    assert (found - ClusterInferer(saliency)(IMAGES, net, cluster=SITE, effects="fixed")).abs().max() > 1e-3


@torch.no_grad()
def test_the_effects_are_handed_on(network):
    inferer = ClusterInferer(CUTTERS["two windows at a time"])
    fixed = inferer(IMAGES, network, cluster=SITE, effects="fixed")
    torch.testing.assert_close(fixed, network(IMAGES, effects="fixed"))
    assert (fixed - inferer(IMAGES, network, cluster=SITE)).abs().max() > 0.1


def test_too_few_clusters_are_refused(network):
    with pytest.raises(ValueError, match="2 images need as many clusters, got 3"):
        ClusterInferer(CUTTERS["patches"])(IMAGES, network, cluster=torch.tensor([0, 1, 2]))


@torch.no_grad()
def test_other_outputs_are_joined():
    inferer = ClusterInferer(SlidingWindowInferer((8, 8), sw_batch_size=3))
    pair = inferer(IMAGES, lambda x: (x, 2 * x))
    named = inferer(IMAGES, lambda x: {"same": x, "twice": 2 * x})
    for same, twice in (pair, tuple(named.values())):
        torch.testing.assert_close(same, IMAGES)
        torch.testing.assert_close(twice, 2 * IMAGES)


def test_under_an_evaluator(network):
    items = [{"image": IMAGES[i], "label": torch.zeros(1, 16, 16), "cluster": SITE[i]} for i in range(2)]
    found = []
    evaluator = SupervisedEvaluator(
        "cpu",
        DataLoader(Dataset(items), batch_size=2),
        network,
        inferer=ClusterInferer(CUTTERS["two windows at a time"]),
        prepare_batch=PrepareBatchCluster(),
        decollate=False,
    )
    evaluator.add_event_handler(Events.ITERATION_COMPLETED, lambda e: found.append(e.state.output["pred"]))
    evaluator.run()
    torch.testing.assert_close(found[0], network(IMAGES, SITE).detach())


@torch.no_grad()
def test_one_cluster_is_that_of_all_windows_also_for_monais_own(network):
    one = sliding_window_inference(IMAGES[1:], (8, 8), 3, network, cluster=SITE[1:])
    torch.testing.assert_close(one, network(IMAGES[1:], SITE[1:]))
    with pytest.raises(ValueError, match="windows of an image need a ClusterInferer"):
        sliding_window_inference(IMAGES, (8, 8), 3, network, cluster=SITE)


def test_occlusion_maps_of_a_clusters_prediction():
    torch.manual_seed(0)
    base = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1))
    net = ARMED(base, CLUSTERS, (1, 16, 16)).eval()
    nn.init.normal_(net.random_effects.loc)

    class OfSiteTwo(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return net(x, torch.full((len(x),), 2))

    maps = [
        OcclusionSensitivity(module, mask_size=4, n_batch=7, activate=False, verbose=False)(IMAGES[:1], **options)[0]
        for module, options in ((net, {"cluster": torch.tensor([2])}), (OfSiteTwo().eval(), {}), (net, {}))
    ]
    torch.testing.assert_close(maps[0], maps[1])
    assert (maps[0] - maps[2]).abs().max() > 1e-3
