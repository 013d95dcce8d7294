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

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.networks.utils import eval_mode

from ..data.kept_rows import KeptRows
from ..data.replaced_file import write_csv, write_text
from ..metrics.calibration_file import read_calibrations
from ..metrics.prediction_sets import set_columns
from ..networks.nets.armed import ARMED
from ..networks.training_distance import distance_columns, warn_of_distance
from ..utils.parallel import unwrap

__all__ = ["PredictionWriter"]


class PredictionWriter:
    """
    Ignite handler that writes a row for each sample that an evaluator predicts, as CSV and JSON: the probability of
    class 1; for an :py:class:`monai_armed.networks.nets.ARMED` network also that of the fixed effects alone, an
    interval from the posterior of the random effects (or from their prior where nothing is known of the cluster), and
    the clusters that the Z-predictor finds the sample most like.

    The interval holds the uncertainty of the random effects alone, not that of the network's weights. What covers for
    new clusters are the prediction sets of a calibration, which evaluation writes: where one lies beside the model,
    samples of an unknown cluster have a ``calibrated_probability`` and a ``prediction_set``, unless they are unlike the
    training data. Where the network knows the distance to these, every row says it
    (:py:func:`monai_armed.networks.training_distance.distance_columns`), and a warning names the samples beyond.

    Args:
        folder: where to write ``predictions.csv`` and ``predictions.json``.
        network: the evaluator's network, with one logit.
        clusters: names of the seen clusters in the order of their index.
        name_key: key of the batch with the name of each sample, and head of the column of names.
        num_draws: draws of the random effects for the interval; there is none where the evaluator's network was called
            with ``effects="fixed"``.
        level: probability inside the interval.
        top: number of inferred clusters to name.
        ckpt_path: the model's file, beside which a ``calibration.json`` is looked for, see
            :py:func:`monai_armed.metrics.calibration_file.read_calibrations`.
        kept: keeps the rows until all are there; that of the loader, a
            :py:class:`monai_armed.data.TolerantLoader`, so that an interrupted run goes on where it was.

    Raises:
        ValueError: when the calibration there is another model's, and while it runs when there is more than one logit
            for a sample, or no name.
    """

    def __init__(
        self,
        folder: str | Path,
        network: torch.nn.Module,
        clusters: Sequence[str],
        name_key: str = "file",
        num_draws: int = 1000,
        level: float = 0.95,
        top: int = 3,
        ckpt_path: str | Path | None = None,
        kept: KeptRows | None = None,
    ) -> None:
        self.folder, self.network, self.clusters = Path(folder), network, list(clusters)
        self.name_key, self.num_draws, self.level, self.top = name_key, num_draws, level, top
        self.kept = KeptRows(name_key=name_key) if kept is None else kept
        self.calibrations = {} if ckpt_path is None else read_calibrations(ckpt_path)

    def attach(self, engine: Engine) -> None:
        """
        Args:
            engine: the evaluator; its postprocessing plays no part.
        """
        if self.kept.path is None:
            engine.add_event_handler(Events.STARTED, lambda _: self.kept.rows.clear())
        # what the network gives, before a postprocessing makes probabilities of it, and whole batches
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._keep)
        engine.add_event_handler(Events.COMPLETED, self._write)

    def _keep(self, engine: Engine) -> None:
        batch, output = engine.state.batch, engine.state.output
        assert isinstance(batch, Mapping) and isinstance(output, Mapping)
        self._check(batch, output["pred"])
        names, logits = batch[self.name_key], output["pred"].detach()
        rows = [
            {self.name_key: str(name), "probability": float(p)} for name, p in zip(names, logits.flatten().sigmoid())
        ]
        network = unwrap(self.network)
        if isinstance(network, ARMED) and len(network.random_slopes):
            with eval_mode(network):
                self._add_mixed(network, rows, output["image"], _options(engine))
        columns = distance_columns(network, output["image"])
        if self.calibrations:
            unlike = torch.tensor(columns.get("unlike_training", [False] * len(rows)))
            unknown = (output["label"]["cluster"].reshape(-1) < 0).cpu()
            self._add_sets(rows, output["pred"], unknown & ~unlike)
        self.kept.add([{**row, **dict(zip(columns, own))} for row, own in zip(rows, zip(*columns.values()))] or rows)

    def _check(self, batch: Mapping, pred: torch.Tensor) -> None:
        if self.name_key not in batch:
            raise ValueError(
                f"a batch has no {self.name_key!r}, its keys are {list(batch)}: give the samples' name_key."
            )
        if pred.numel() != len(pred):
            raise ValueError(
                f"predictions are written of networks with one logit, got {tuple(pred.shape)} for a batch: several "
                "classes, and segmentations, need a writer such as MONAI's ClassificationSaver or SaveImage."
            )

    def _add_sets(self, rows: list[dict[str, Any]], logits: torch.Tensor, wanted: torch.Tensor) -> None:
        """Of the wanted samples, by the calibration of what predicted them."""
        logits = logits.detach().float().reshape(-1, 1)
        own = next(iter(self.calibrations))
        for i in wanted.nonzero().flatten().tolist():
            population = "population_probability" in rows[i] and "like_1" not in rows[i]
            calibration = self.calibrations["fixed" if population else own]
            columns = set_columns(calibration.probabilities(logits[i : i + 1]), calibration.sets(logits[i : i + 1]))
            rows[i].update({name: value for name, (value,) in columns.items()})

    def _add_mixed(
        self, network: ARMED, rows: list[dict[str, Any]], image: torch.Tensor, options: Mapping[str, Any]
    ) -> None:
        with torch.no_grad():
            population = network(image, effects="fixed").reshape(-1).sigmoid()
            clusters = network.clusters(image, options.get("cluster"))
        z = clusters[network.clusters.first]
        intervals: list[dict[str, float]] = [{} for _ in rows]
        if options.get("effects") != "fixed":
            draws = network.sample_logits(image, clusters, self.num_draws, "population")  # who can be inferred is
            tail = torch.tensor([(1 - self.level) / 2, (1 + self.level) / 2], device=image.device)
            ends = draws.reshape(self.num_draws, -1).float().sigmoid().quantile(tail, dim=0)
            intervals = [{"low": low, "high": high} for low, high in ends.T.tolist()]
        for i, (row, interval) in enumerate(zip(rows, intervals)):
            row.update(**interval, population_probability=float(population[i]))
            if z.is_floating_point() and z[i].sum() > 0:  # a row of zeros: the population
                weights, best = z[i].topk(min(self.top, z.shape[1]))
                for k, (weight, j) in enumerate(zip(weights.tolist(), best.tolist()), 1):
                    row.update({f"like_{k}": self.clusters[j], f"like_{k}_weight": weight})

    def _write(self, engine: Engine) -> None:
        rows = self.kept.table()
        table = pd.DataFrame(rows)
        write_csv(table, self.folder / "predictions.csv")
        write_text(json.dumps(rows, indent=2), self.folder / "predictions.json")
        self.kept.finish()
        print(table.to_string(index=False, float_format="%.3f"))
        print(f"written to {self.folder / 'predictions.csv'} and predictions.json")
        if "unlike_training" in table:
            warn_of_distance(table[self.name_key].tolist(), table["unlike_training"].tolist())


def _options(engine: Engine) -> Mapping[str, Any]:
    """What the evaluator's network was called with beside the image: the clusters of all factors, if any."""
    prepared = engine.prepare_batch(  # type: ignore[attr-defined]
        engine.state.batch,
        engine.state.device,  # type: ignore[attr-defined]
        engine.non_blocking,  # type: ignore[attr-defined]
        **engine.to_kwargs,  # type: ignore[attr-defined]
    )
    return prepared[3] if len(prepared) == 4 else {}
