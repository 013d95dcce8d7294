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

from collections.abc import Mapping

import torch
from monai.engines import PrepareBatch
from monai.utils import CommonKeys

__all__ = ["PrepareBatchCluster", "PrepareBatchRandomCluster"]


class PrepareBatchCluster(PrepareBatch):
    """
    Hands the cluster of each sample to the network, as an argument, and to the loss, beside the label.

    Args:
        image_key: key of the network's input in the batch.
        label_key: key of the label.
        cluster_key: key of the cluster index.
        pass_cluster: if False the network is called without the cluster, as conventional networks want it.
        effects: if given, passed to the network: ``"mixed"``, ``"fixed"`` or ``"random"``.

    Example:
        >>> trainer = SupervisedTrainer(..., prepare_batch=PrepareBatchCluster())
    """

    def __init__(
        self,
        image_key: str = CommonKeys.IMAGE,
        label_key: str = CommonKeys.LABEL,
        cluster_key: str = "cluster",
        pass_cluster: bool = True,
        effects: str | None = None,
    ) -> None:
        self.image_key, self.label_key, self.cluster_key = image_key, label_key, cluster_key
        self.pass_cluster, self.effects = pass_cluster, effects

    def __call__(
        self,
        batchdata: Mapping[str, torch.Tensor],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], tuple, dict]:
        """
        Returns:
            image; targets ``{"label", "cluster"}``; no further arguments; keyword arguments of the network.

        Raises:
            ValueError: when the batch lacks one of the keys.
        """
        for key in (self.image_key, self.label_key, self.cluster_key):
            if key not in batchdata:
                raise ValueError(f"a batch has no {key!r}, its keys are {list(batchdata)}: check the transforms.")
        image, label, cluster = (
            batchdata[key].to(device=device, non_blocking=non_blocking, **kwargs)
            for key in (self.image_key, self.label_key, self.cluster_key)
        )
        cluster = cluster.long()  # after `.to(dtype=...)`, which is meant for images
        options: dict = {"cluster": cluster} if self.pass_cluster else {}
        if self.effects is not None:
            options["effects"] = self.effects
        return image, {"label": label, "cluster": cluster}, (), options


class PrepareBatchRandomCluster(PrepareBatchCluster):
    """
    Hands the network a cluster at random in place of the sample's own: the ablation "randomized Z" (Section 2.6 of
    https://arxiv.org/abs/2202.11783). If the prediction does not suffer, the random effects say nothing.

    Args:
        num_clusters: number of clusters C to draw from, uniformly.
        seed: seed of the draws.
        kwargs: arguments of :py:class:`PrepareBatchCluster`.
    """

    def __init__(self, num_clusters: int, seed: int = 0, **kwargs) -> None:
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
        drawn = torch.randint(self.num_clusters, targets["cluster"].shape, generator=self.generator)
        return image, targets, args, {**options, "cluster": drawn.to(image.device)}
