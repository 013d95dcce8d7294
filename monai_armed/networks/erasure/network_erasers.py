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

"""Fitting the erasers of a network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from monai.networks.utils import eval_mode

from ...engines.prepare_batch import default_prepare_batch
from ...utils.parallel import unwrap
from ..layers.feature_layers import record_layers
from .eraser import ClusterEraser
from .feature_sums import FeatureSums
from .fit import fit_eraser

if TYPE_CHECKING:
    from ..nets.armed import ARMED

__all__ = ["fit_erasers", "layer_sums"]


def fit_erasers(
    net: ARMED,
    loader: Iterable[Mapping[str, Any]],
    num_classes: int = 0,
    num_values: int = 0,
    within_label: bool = True,
    keep_label: bool = False,
    above_noise: bool = True,
    prepare_batch: Callable | None = None,
) -> dict[str, int]:
    """
    Erase from the layers of a trained network what tells the clusters (of the first factor), in place of what its
    erasers were: one pass over the data for each layer, in the order in which they run, without training. In several
    processes, each with its own batches, all come to the same.

    Args:
        net: a network with erasers, ``ARMED(..., erasers={"layer": ClusterEraser(num_features)})``, also inside
            ``DistributedDataParallel``. Its erasers are changed, or, where an error is raised, are what they were.
        loader: batches of data like the training's, without augmentation.
        num_classes: number of classes of the label; or
        num_values: number of values of a label that is continuous. Without both the label is not heeded.
        within_label, above_noise: see :py:func:`~monai_armed.networks.erasure.fit_eraser`.
        keep_label: the same; by default not, since the layers behind an eraser are not trained anew here, and keeping
            it may take a larger change: where clusters differ along nearly the same direction as the classes do.
        prepare_batch: as for a trainer; by default :py:class:`monai_armed.engines.PrepareBatchCluster`.

    Returns:
        how many directions are erased from each layer, by its name.

    Raises:
        ValueError: when the network has no :py:class:`ClusterEraser`, or the data do not let one be fitted.

    Example:
        >>> net = ARMED(trained, num_clusters=3, input_shape=(3, 64, 64), erasers={"dense": ClusterEraser(64)})
        >>> fit_erasers(net, loader, num_classes=2)
        {'dense': 2}
    """
    net = unwrap(net)
    erasers = dict(zip(getattr(net, "erased_layers", ()), getattr(net, "erasers", ())))
    if not erasers or not all(isinstance(eraser, ClusterEraser) for eraser in erasers.values()):
        raise ValueError(
            "the network has no ClusterEraser to fit: build it with "
            "ARMED(..., erasers={layer: ClusterEraser(num_features)})."
        )
    before = copy.deepcopy(net.erasers.state_dict())
    try:
        for eraser in erasers.values():
            eraser.reset_parameters()
        for name, eraser in erasers.items():
            sums = layer_sums(net, name, loader, num_classes, num_values, prepare_batch)
            sums.all_reduce()
            eraser.load_state_dict(fit_eraser(sums, within_label, keep_label, above_noise).state_dict())
    except ValueError:
        net.erasers.load_state_dict(before)
        raise
    return {name: int(eraser.rank) for name, eraser in erasers.items()}


def layer_sums(
    net: ARMED,
    name: str,
    loader: Iterable[Mapping[str, Any]],
    num_classes: int = 0,
    num_values: int = 0,
    prepare_batch: Callable | None = None,
) -> FeatureSums:
    """
    Sums of what a layer gives before its eraser, over all batches of this process, in evaluation mode. Of maps and
    tokens that is the mean over places; of tokens over those that the network goes on with, such as the class token.

    Args:
        name: the layer, one of ``net.erased_layers``.
        net, loader, num_classes, num_values, prepare_batch: see :py:func:`fit_erasers`; the erasers stay as they are.
    """
    prepare = default_prepare_batch(net.factors) if prepare_batch is None else prepare_batch
    device, erasers = next(net.erasers.buffers()).device, dict(zip(net.erased_layers, net.erasers))
    sums = FeatureSums(len(erasers[name].offset), net.num_clusters, num_classes, num_values)  # type: ignore[arg-type]
    with eval_mode(net):
        for batch in loader:
            x, target, _, _ = prepare(batch, device)
            with record_layers(net.network, copied=net.overwritten, changes=erasers) as record:
                net.network(x)
            sums.update(net.erased_places[name](record.unchanged[name]), target["cluster"], target["label"])
    return sums
