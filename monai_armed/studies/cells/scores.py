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

"""The figures of a cell model as rows for the comparison of models."""

from __future__ import annotations

from collections.abc import Mapping

from monai_armed.studies.cells.evaluation import PREDICTIONS

__all__ = ["score_cells"]

PARTITIONS = {"test": "seen", "unseen": "unseen"}  # the batches that a partition's cells are from


def score_cells(figures: Mapping[str, float]) -> list[dict[str, str | float]]:
    """
    The figures of :py:func:`monai_armed.studies.cells.evaluation.evaluate_cells` for the comparison of models: each as
    a row with its partition, prediction and metric. What is measured on the latents or against the truth goes with the
    model's own prediction on seen batches; the excess of Calinski-Harabasz over its null, and the classifiers' over
    their accuracy on batch-free images, are rows of their own.

    Args:
        figures: all figures by name.

    Returns:
        dicts of ``partition`` (``"seen"`` or ``"unseen"``), ``prediction``, ``metric`` and ``value``.
    """
    figures = dict(figures)
    own = next(name for name in PREDICTIONS if f"test_{name}_mse" in figures)
    for name in ("davies_bouldin", "calinski_harabasz"):
        if name in figures:
            figures[f"{name}_gap"] = figures[name] - figures[f"{name}_null"]
    for name in ("logistic", "mlp"):
        if f"batch_free_probe_{name}" in figures:
            figures[f"probe_{name}_excess"] = figures[f"probe_{name}"] - figures[f"batch_free_probe_{name}"]
    rows: list[dict[str, str | float]] = []
    for name, value in figures.items():
        start, _, rest = name.partition("_")
        if start in ("test", "unseen"):
            prediction, _, metric = rest.partition("_")
            metric = {"low": "auroc_low", "high": "auroc_high"}.get(metric, metric)
            rows.append({"partition": PARTITIONS[start], "prediction": prediction, "metric": metric, "value": value})
        else:
            rows.append({"partition": "seen", "prediction": own, "metric": name, "value": value})
    return rows
