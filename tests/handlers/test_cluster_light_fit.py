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

import logging
from types import SimpleNamespace

import torch
from ignite.engine import Engine, Events

from monai_armed.handlers import ClusterLightFit
from monai_armed.networks.blocks import ClusterLight


def images(number: int) -> torch.Tensor:
    return torch.rand(number, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def test_the_light_is_fitted_before_training_and_a_network_without_one_left_alone():
    network, trainer, fitted = SimpleNamespace(light=ClusterLight(2)), Engine(lambda engine, batch: None), []
    ClusterLightFit(network, [{"image": images(6), "cluster": torch.tensor([0, 0, 0, 1, 1, 1])}]).attach(trainer)
    trainer.add_event_handler(Events.EPOCH_STARTED, lambda: fitted.append(network.light.fitted))
    trainer.run([0], max_epochs=1)
    assert fitted == [True] and network.light.count.tolist() == [3, 3]
    ClusterLightFit(SimpleNamespace(light=None), [])()
    ClusterLightFit(SimpleNamespace(), [])()


def test_too_few_images_are_a_warning_and_no_error(caplog):
    network = SimpleNamespace(light=ClusterLight(2))
    with caplog.at_level(logging.WARNING):
        ClusterLightFit(network, [{"image": images(2), "cluster": torch.tensor([0, 1])}])()
    assert not network.light.fitted and "keep their clusters' light" in caplog.text
