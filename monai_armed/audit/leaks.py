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
"""What a prediction tells of sites and other attributes among samples that do not differ in what it is for."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, rankdata

__all__ = ["attribute_leaks", "one_a_subject"]

NUM_PERMUTATIONS = 999
FEWEST = 5  # samples of a level: fewer say nothing


def one_a_subject(subject: np.ndarray, label: np.ndarray, seed: int = 0) -> np.ndarray:
    """
    Indices, in order, of one sample of each subject and class, drawn at random: tests by permutation need samples that
    are independent, and images of one subject are alike.

    Args:
        subject: name (N,).
        label: class (N,).
        seed: seed of the draw.
    """
    order = np.random.default_rng(seed).permutation(len(subject))
    drawn = pd.DataFrame({"subject": subject, "label": label}).iloc[order].drop_duplicates()
    return np.sort(drawn.index.to_numpy())


def attribute_leaks(score: np.ndarray, attributes: pd.DataFrame, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """
    The leak of each attribute: AUROC with which the score tells one level from the others, folded to above 0.5 (as
    :py:func:`~monai_armed.metrics.leak.cluster_leak`), mean over the levels with their numbers of samples as weights,
    so that small ones, whose AUROC is mostly chance, say little.

    Args:
        score: of samples that are alike in what it is for, such as controls, and independent, (N,).
        attributes: a column each of levels, (N, A); empty text: not known. Levels of fewer than five samples are left
            out.
        seed: seed of the permutations.

    Returns:
        a row an attribute: ``attribute``, ``samples``, ``levels``, ``leak``, its mean under permutation, ``chance``,
        and 95th percentile there, ``chance_high``, ``p``, and ``p_adjusted`` (Benjamini and Hochberg, over the rows);
        and a row a level: ``attribute``, ``level``, ``samples``, ``auroc`` (not folded: above 0.5 where the level has
        higher scores), ``median`` score. Attributes of fewer than two levels are left out.
    """
    rng = np.random.default_rng(seed)
    rows, of_levels = [], []
    for name in attributes:
        level = attributes[name].to_numpy(str)
        names, count = np.unique(level[level != ""], return_counts=True)
        kept = np.isin(level, names[count >= FEWEST])
        if len(np.unique(level[kept])) < 2:
            continue
        one_hot = pd.get_dummies(pd.Series(level[kept])).astype(float)
        ranks = rankdata(score[kept])
        auroc = _aurocs(ranks[None], one_hot.to_numpy())[0]
        share = one_hot.mean().to_numpy()
        leak = 0.5 + float(share @ abs(auroc - 0.5))
        shuffled = rng.permuted(np.tile(ranks, (NUM_PERMUTATIONS, 1)), axis=1)
        null = 0.5 + abs(_aurocs(shuffled, one_hot.to_numpy()) - 0.5) @ share
        row = {"attribute": name, "samples": len(ranks), "levels": one_hot.shape[1], "leak": leak}
        row |= {"chance": null.mean(), "chance_high": np.quantile(null, 0.95)}
        rows.append(row | {"p": (1 + (null >= leak - 1e-12).sum()) / (1 + NUM_PERMUTATIONS)})
        median = pd.Series(score[kept]).groupby(level[kept]).median()
        of_levels += [
            {"attribute": name, "level": each, "samples": int(one_hot[each].sum()), "auroc": a, "median": median[each]}
            for each, a in zip(one_hot, auroc)
        ]
    columns = ["attribute", "samples", "levels", "leak", "chance", "chance_high", "p"]
    table = pd.DataFrame(rows, columns=columns)
    table = table.assign(p_adjusted=false_discovery_control(table["p"]) if rows else [])
    return table, pd.DataFrame(of_levels, columns=["attribute", "level", "samples", "auroc", "median"])


def _aurocs(ranks: np.ndarray, one_hot: np.ndarray) -> np.ndarray:
    """AUROC of each level against the others, (P, L), from ranks (P, N), by Mann and Whitney's U."""
    n = one_hot.sum(0)
    return (ranks @ one_hot - n * (n + 1) / 2) / (n * (len(one_hot) - n))
