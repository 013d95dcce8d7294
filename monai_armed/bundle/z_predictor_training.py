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

from collections.abc import Callable

import torch
from monai.data import DataLoader
from monai.engines import SupervisedTrainer, Trainer

from monai_armed.engines import PrepareBatchCluster
from monai_armed.handlers import EpochSeed, LossProgress, TrainingCheckpoint, load_weights
from monai_armed.losses import ZPredictorLoss
from monai_armed.networks.nets import ZPredictor

__all__ = ["ZPredictorTraining"]


class ZPredictorTraining:
    """
    Trains a Z-predictor to name the cluster, on the batches and the device of the network that it belongs to, by
    MONAI's ``SupervisedTrainer``, and calibrates it.

    Args:
        network_def: the Z-predictor.
        network: the same, or wrapped for several processes.
        trainer: of the network that it belongs to; its batches hold ``"image"``, ``"label"`` and ``"cluster"``.
        checkpoint: of that network, beside which the Z-predictor is kept.
        held_out: batches of seen clusters that it is not trained on, such as the validation loader.
        max_epochs: number of epochs.
        optimizer: class of the optimizer.
        learning_rate: of the optimizer.
        seed: of shuffles and random transforms.
        loss: of cluster logits and the cluster; by default the cross-entropy.
    """

    def __init__(
        self,
        network_def: ZPredictor,
        network: torch.nn.Module,
        trainer: Trainer,
        checkpoint: TrainingCheckpoint,
        held_out: DataLoader,
        max_epochs: int,
        optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
        learning_rate: float = 1e-3,
        seed: int = 0,
        loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        self.z_predictor, self.held_out, self.device = network_def, held_out, trainer.state.device
        learner = optimizer(network.parameters(), lr=learning_rate)
        folder = checkpoint.folder.parent / "z_predictor"
        self.checkpoint = TrainingCheckpoint(folder, resume=checkpoint.resume, fingerprint=checkpoint.fingerprint)
        self.trainer = SupervisedTrainer(
            self.device,
            max_epochs,
            trainer.data_loader,
            network,
            learner,
            ZPredictorLoss(loss),
            prepare_batch=PrepareBatchCluster(pass_cluster=False),
            train_handlers=[EpochSeed(seed), LossProgress(desc="Z-predictor"), self.checkpoint],
            decollate=False,
            amp=trainer.amp,
        )

    @torch.no_grad()
    def finish(self) -> ZPredictor:
        """The Z-predictor as it was kept, calibrated; says how sure and how right it is on the held-out samples."""
        z_predictor, device = self.z_predictor, self.device
        load_weights(z_predictor, self.checkpoint.model_path, device)
        z_predictor.eval()
        batches = [(z_predictor.logits(b["image"].to(device)).cpu(), b["cluster"]) for b in self.held_out]
        if not batches:
            print("the Z-predictor is not calibrated: no sample is held out for validation.")
            return z_predictor
        logits, cluster = (torch.cat(parts) for parts in zip(*batches))
        if logits.shape[1] == 1:
            print("the Z-predictor knows one cluster alone and infers none: others are predicted as the population.")
            return z_predictor
        temperature = z_predictor.calibrate(logits, cluster)
        z = (logits / temperature).softmax(dim=1)
        print(
            f"Z-predictor on {len(cluster)} held-out samples of {z.shape[1]} seen clusters: "
            f"right {float((z.argmax(1) == cluster).float().mean()):.0%}, temperature {temperature:.2f}, "
            f"mean entropy {float(z_predictor.entropy(z).mean()):.2f} ln(C)"
        )
        return z_predictor
