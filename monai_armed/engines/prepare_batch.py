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

from collections.abc import Iterable, Mapping, Sequence

import torch
from monai.engines import PrepareBatch
from monai.utils import CommonKeys, ensure_tuple

__all__ = ["PrepareBatchCluster", "PrepareBatchRandomCluster", "default_prepare_batch"]

CLUSTERS = " Names of clusters become indices by ClusterToIndexd; -1 is a cluster that is not known."


class PrepareBatchCluster(PrepareBatch):
    """
    Hands the cluster of each sample to the network, as an argument, and to the loss, beside the label.

    Args:
        image_key: key of the network's input in the batch.
        label_key: key of the label.
        cluster_key: key of the cluster index. For a network with several factors a list of keys, which are the
            factors' names, or a mapping of the factors' names to keys; the first is the network's first, whose index
            goes into the targets, for the adversary.
        pass_cluster: if False the network is called without the cluster, as conventional networks want it.
        effects: if given, passed to the network: ``"mixed"``, ``"fixed"`` or ``"random"``.
        target_keys: further keys for the targets, such as ``["offset", "weight"]`` for
            :py:class:`monai_armed.losses.ARMEDLoss`.

    Example:
        >>> trainer = SupervisedTrainer(..., prepare_batch=PrepareBatchCluster())
        >>> nested = SupervisedTrainer(..., prepare_batch=PrepareBatchCluster(cluster_key=["site", "subject"]))

    Raises:
        ValueError: when ``cluster_key`` is empty.
    """

    def __init__(
        self,
        image_key: str = CommonKeys.IMAGE,
        label_key: str = CommonKeys.LABEL,
        cluster_key: str | Sequence[str] | Mapping[str, str] = "cluster",
        pass_cluster: bool = True,
        effects: str | None = None,
        target_keys: Sequence[str] = (),
    ) -> None:
        self.image_key, self.label_key = image_key, label_key
        self.several = not isinstance(cluster_key, str)
        keys = [cluster_key] if isinstance(cluster_key, str) else cluster_key
        self.cluster_keys = dict(keys) if isinstance(keys, Mapping) else {key: key for key in keys}
        if not self.cluster_keys:
            raise ValueError("cluster_key must name one key at least, got none.")
        self.pass_cluster, self.effects, self.target_keys = pass_cluster, effects, ensure_tuple(target_keys)

    def __call__(
        self,
        batchdata: Mapping[str, torch.Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], tuple, dict]:
        """
        Returns:
            image; targets ``{"label", "cluster", "image"}``, the last for networks that reconstruct it; no further
            arguments; keyword arguments of the network.

        Raises:
            ValueError: when the batch lacks one of the keys, or has no tensor there, such as names of clusters.
        """
        for key in (self.image_key, self.label_key, *self.cluster_keys.values(), *self.target_keys):
            hint = CLUSTERS if key in self.cluster_keys.values() else ""
            if key not in batchdata:
                raise ValueError(f"a batch has no {key!r}, its keys are {list(batchdata)}: check the transforms.{hint}")
            if not isinstance(batchdata[key], torch.Tensor):
                raise ValueError(f"{key!r} of a batch is no tensor but a {type(batchdata[key]).__name__}.{hint}")
        image, label, *indices = (
            batchdata[key].to(device=device, non_blocking=non_blocking, **kwargs)
            for key in (self.image_key, self.label_key, *self.cluster_keys.values())
        )
        # long after `.to(dtype=...)`, which is meant for images
        clusters = {factor: index.long() for factor, index in zip(self.cluster_keys, indices)}
        first = next(iter(clusters.values()))
        options: dict = {"cluster": clusters if self.several else first} if self.pass_cluster else {}
        if self.effects is not None:
            options["effects"] = self.effects
        further = {
            key: batchdata[key].to(device=device, non_blocking=non_blocking, **kwargs) for key in self.target_keys
        }
        return image, {"label": label, "cluster": first, "image": image, **further}, (), options


def default_prepare_batch(factors: Iterable[str]) -> PrepareBatchCluster:
    """For a network with these factors: the keys of several are their names, that of a single one is ``"cluster"``."""
    names = list(factors)
    return PrepareBatchCluster(cluster_key=names if len(names) > 1 else "cluster")


class PrepareBatchRandomCluster(PrepareBatchCluster):
    """
    Hands the network a cluster at random in place of the sample's own: the ablation "randomized Z" (Section 2.6 of
    https://arxiv.org/abs/2202.11783). If the prediction does not suffer, the random effects say nothing.

    Args:
        num_clusters: number of clusters C to draw from, uniformly; of several factors that of each by its name.
        seed: seed of the draws.
        kwargs: arguments of :py:class:`PrepareBatchCluster`.
    """

    def __init__(self, num_clusters: int | Mapping[str, int], seed: int = 0, **kwargs) -> None:
        super().__init__(**kwargs)
        self.num_clusters = num_clusters
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(
        self,
        batchdata: Mapping[str, torch.Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], tuple, dict]:
        """As :py:meth:`PrepareBatchCluster.__call__`; the targets keep the true cluster."""
        image, targets, args, options = super().__call__(batchdata, device, non_blocking, **kwargs)
        numbers, size = self.num_clusters, targets["cluster"].shape

        def drawn(number: int) -> torch.Tensor:
            return torch.randint(number, size, generator=self.generator).to(image.device)

        if isinstance(numbers, Mapping):
            return image, targets, args, {**options, "cluster": {name: drawn(n) for name, n in numbers.items()}}
        return image, targets, args, {**options, "cluster": drawn(numbers)}
