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
import pytest
import torch

from monai_armed.networks.blocks.cluster_light import ClusterLight
from monai_armed.networks.layers.image_light import light_plane, measure_light


def patches(number, level=0.4, seed=0, side=48):
    """Even squares of random size on nothing."""
    rng = np.random.default_rng(seed)
    images = torch.zeros(number, 1, side, side)
    for image, half in zip(images, rng.integers(4, 9, number)):
        image[0, 24 - half : 24 + half, 24 - half : 24 + half] = level
    return images


def noisy(images, sd=0.004, seed=0):
    return images + sd * torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))


def test_a_plane_scale_and_area_are_measured():
    content = patches(6)
    background = torch.tensor([[0.1, 0.05, -0.03]]).repeat(6, 1)
    light = measure_light(noisy(content + light_plane(background, content.shape[2:])))
    torch.testing.assert_close(light.background, background, atol=0.002, rtol=0)
    torch.testing.assert_close(light.log_scale, torch.full((6,), 0.4).log(), atol=0.03, rtol=0)
    area = (content > 0).float().mean(dim=(1, 2, 3))
    torch.testing.assert_close(light.log_area, area.log(), atol=0.1, rtol=0)
    torch.testing.assert_close(light.noise, torch.full((6,), 0.004), atol=0.001, rtol=0)


def test_gain_moves_the_scale_alone():
    image = noisy(patches(4))
    plain, brighter = measure_light(0.1 + image), measure_light(0.1 + 1.5 * image)
    torch.testing.assert_close(brighter.log_scale - plain.log_scale, torch.full((4,), 1.5).log(), atol=0.01, rtol=0)
    torch.testing.assert_close(brighter.log_area, plain.log_area, atol=0.02, rtol=0)


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_an_image_without_content_has_finite_light(value):
    assert all(part.isfinite().all() for part in measure_light(torch.full((1, 1, 16, 16), value)))


def test_light_of_other_images_is_refused():
    with pytest.raises(ValueError, match=r"\(2, 3, 8, 8\)"):
        measure_light(torch.zeros(2, 3, 8, 8))
    with pytest.raises(ValueError, match="damaged"):
        measure_light(torch.full((1, 1, 8, 8), torch.nan))


def clustered(counts, effects, seed=0):
    """Patches under each cluster's light: background, gains and log scale; and the same under the mean light."""
    cluster = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    content, mean = patches(len(cluster), seed=seed), torch.tensor([0.2, 0.0, 0.0, 0.0])
    light = mean + effects[cluster]
    images = light[:, 3].exp()[:, None, None, None] * content + light_plane(light[:, :3], content.shape[2:])
    return noisy(images, seed=seed), cluster, content


EFFECTS = torch.tensor([[0.05, 0.02, 0.0, 0.3], [-0.05, 0.0, 0.03, -0.3], [0.0, -0.02, -0.03, 0.0]])


def fitted(images, cluster, num_clusters, size=16):
    light = ClusterLight(num_clusters)
    light.fit([{"image": x, "cluster": c} for x, c in zip(images.split(size), cluster.split(size))])
    return light


def test_clusters_get_their_light():
    images, cluster, _ = clustered([30, 30, 30], EFFECTS)
    light = fitted(images, cluster, 3)
    assert light.fitted and not ClusterLight(3).fitted and light.count.tolist() == [30, 30, 30]
    torch.testing.assert_close(light.effects[:, :3], EFFECTS[:, :3], atol=0.004, rtol=0)
    torch.testing.assert_close(light.effects[:, 3], EFFECTS[:, 3], atol=0.03, rtol=0)


def test_an_image_is_shown_as_another_cluster_shows_it():
    images, cluster, content = clustered([30, 30, 30], EFFECTS)
    light = fitted(images, cluster, 3)
    for j in range(3):
        expected = EFFECTS[j, 3].exp() * content + light_plane(0.0 + EFFECTS[j : j + 1, :3], content.shape[2:]) + 0.2
        shown = light(images, cluster, torch.full_like(cluster, j))
        assert (shown - expected).square().mean() < 1e-4 < (images - expected).square().mean()


def test_own_cluster_is_the_image_itself_and_there_and_back():
    images, cluster, _ = clustered([10, 10, 10], EFFECTS)
    light = fitted(images, cluster, 3)
    torch.testing.assert_close(light(images, cluster, cluster), images)
    other = (cluster + 1) % 3
    torch.testing.assert_close(light(light(images, cluster, other), other, cluster), images, atol=1e-5, rtol=1e-5)


def test_the_batches_that_come_make_no_difference():
    images, cluster, _ = clustered([7, 20, 11], EFFECTS)
    one, many = fitted(images, cluster, 3, size=100), fitted(images, cluster, 3, size=5)
    for name, value in one.state_dict().items():
        torch.testing.assert_close(many.state_dict()[name], value, msg=name)


def test_few_images_are_shrunk_and_a_cluster_without_any_is_the_population():
    generator = torch.Generator().manual_seed(0)
    true = torch.cat([torch.zeros(8, 3), 0.3 * torch.randn(8, 1, generator=generator)], dim=1)
    images, cluster, _ = clustered([20] * 8, true)
    gain = (0.3 * torch.randn(len(images), generator=generator)).exp()[:, None, None, None]
    images, others, two = 0.2 + gain * (images - 0.2), cluster > 0, torch.tensor([0, 1])

    def effect(index):
        chosen = torch.cat([index, torch.where(others)[0]])
        light = fitted(images[chosen], cluster[chosen], 9)
        assert torch.equal(light.effects[8], torch.zeros(4))
        return light.effects[0, 3]

    assert effect(two).sign() == effect(two.repeat(10)).sign()
    assert effect(two).abs() < 0.9 * effect(two.repeat(10)).abs()


def test_alike_clusters_stay_as_they_are():
    images, cluster, _ = clustered([3] * 10, torch.zeros(10, 4))
    light = fitted(images, cluster, 10)
    shown = light(images, cluster, (cluster + 1) % 10)
    assert (shown - images).square().mean() < 1e-5


def test_an_unknown_cluster_is_read_from_the_image():
    images, cluster, content = clustered([30, 30, 30], EFFECTS)
    light = fitted(images, cluster, 3)
    unknown = torch.full_like(cluster, -1)
    with_cluster, without = light(images, cluster, unknown), light(images, unknown, unknown)
    expected = 0.2 + content
    for shown in (with_cluster, without):
        assert (shown - expected).square().mean() < 0.25 * (images - expected).square().mean()


def test_unknown_training_images_do_not_count_and_refusals_are_plain():
    images, cluster, _ = clustered([10, 10, 10], EFFECTS)
    known = cluster.clone()
    known[::3] = -1
    light, reference = fitted(images, known, 3), fitted(images[known >= 0], known[known >= 0], 3)
    torch.testing.assert_close(light.effects, reference.effects)
    with pytest.raises(ValueError, match="two images or more"):
        ClusterLight(3).fit([{"image": images[::10], "cluster": cluster[::10]}])
    with pytest.raises(ValueError, match="index 3 is out of range: the light has clusters 0 to 2"):
        light(images[:1], cluster[:1], torch.tensor([3]))
    with pytest.raises(ValueError, match="at least 2"):
        ClusterLight(1)


def test_what_is_recorded_for_some_images_is_right_for_another_number():
    images, cluster, _ = clustered([4, 4], torch.tensor([[0.05, 0.0, 0.0, 0.3], [-0.05, 0.0, 0.0, -0.3]]))
    light = ClusterLight(2)
    light.fit([{"image": images, "cluster": cluster}])
    without = lambda x: light.relight(x, light.predict(x), None)  # noqa: E731
    recorded = torch.jit.trace(without, (images[:2],))
    torch.testing.assert_close(recorded(images[1:6]), without(images[1:6]))
