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
"""All models on all clustered tables; run ``python benchmarks/real_data/run.py``, again to go on where it stopped.

Seen clusters: 10 folds of rows, stratified by cluster (not by class within the cluster: that would tell the models the
test rows' share of each class). Unseen clusters: 10 folds of whole clusters, whose index the models do not get. Where
several rows are of one person (the children of a mother), ``seen, whole groups`` keeps these together.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from models import Boosting, MixedModel, Model, Regression, TrainingPart
from network_models import KINDS, Network
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from table_of_results import write_results
from tables import IMPAC_DIR, TABLES, Table, read_table
from tqdm import tqdm

from monai_armed.data.folds import shuffled_groups

__all__ = ["MODELS", "main", "outer_folds", "run_fold"]

NUM_FOLDS, INNER_FOLDS, OUTLIER = 10, 3, 5.0


MODELS: dict[str, Callable[[], Model]] = {
    "regression": functools.partial(Regression, one_hot=False),
    "regression, one-hot": functools.partial(Regression, one_hot=True),
    "mixed model": MixedModel,
    "GPBoost": Boosting,
    **{kind: functools.partial(Network, kind) for kind in KINDS},
}


def preprocessor():
    """Coding and scaling, to be fitted to a training part: an empty category is one of its own, numbers are imputed."""
    clip = FunctionTransformer(np.clip, kw_args={"a_min": -OUTLIER, "a_max": OUTLIER})
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), clip)
    fill = FunctionTransformer(lambda frame: frame.astype(object).where(frame.notna(), "none"))
    one_hot = OneHotEncoder(drop="first", handle_unknown="ignore", sparse_output=False)
    return make_column_transformer(
        (numbers, make_column_selector(dtype_include="number")),
        (make_pipeline(fill, one_hot, StandardScaler()), make_column_selector(dtype_exclude="number")),
    )


def partitions(table: Table) -> list[str]:
    """The ways in which a table is split."""
    return ["seen", "unseen"] if table.group is None else ["seen", "seen, whole groups", "unseen"]


def outer_folds(
    table: Table, partition: str, num_folds: int, seed: int, rows: np.ndarray | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Training and test rows of each fold; of some of the rows, as positions in them, for inner folds."""
    rows = np.arange(len(table.y)) if rows is None else rows
    cluster = table.cluster[rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # clusters of fewer rows than folds
        if partition == "unseen":
            return list(GroupKFold(num_folds, shuffle=True, random_state=seed).split(cluster, groups=cluster))
        if partition == "seen":
            num_folds = min(num_folds, int(np.unique(cluster, return_counts=True)[1].max()))  # four visits: four folds
            return list(StratifiedKFold(num_folds, shuffle=True, random_state=seed).split(cluster, cluster))
        assert table.group is not None
        groups = shuffled_groups(table.group[rows], seed)
        return list(StratifiedGroupKFold(num_folds).split(cluster, cluster, groups))


def run_fold(
    table: Table, partition: str, fold: int, train: np.ndarray, test: np.ndarray, models: dict[str, Path]
) -> Iterator[str]:
    """Fit models to a fold's training part, and save what they predict; yields the name of each that is done.

    Args:
        table: the table.
        partition: one of :py:func:`partitions`.
        fold: number of the fold, the seed of what is drawn in it.
        train: its training rows.
        test: its test rows.
        models: for each model the file to be written.
    """
    coder = preprocessor().fit(table.x.iloc[train])
    x, x_test = (np.asarray(coder.transform(table.x.iloc[rows]), float) for rows in (train, test))
    z_test = np.full(len(test), -1) if partition == "unseen" else table.cluster[test]
    inner = outer_folds(table, partition, INNER_FOLDS, fold, train)
    part = TrainingPart(x, table.y[train], table.cluster[train], table.num_clusters, table.binary, inner, seed=fold)
    for name, path in models.items():
        part.memory["saved seconds"] = 0.0
        start = time.process_time()
        model = MODELS[name]().fit(part)
        seconds = time.process_time() - start + part.memory["saved seconds"]
        scores = {kind: np.asarray(score).tolist() for kind, score in model.predict(x_test, z_test).items()}
        result = {"seconds": seconds, "choice": str(getattr(model, "options", "")), "rows": test.tolist()}
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".part")
        draft.write_text(json.dumps({**result, "scores": scores}), encoding="utf-8")
        draft.replace(path)
        yield name


def fold_file(out: Path, table: str, partition: str, model: str, fold: int) -> Path:
    """Where a result is saved."""
    return out / "folds" / table / partition / f"{model}-{fold}.json"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=lambda s: s.split(","), default=list(TABLES), help="tables, by comma")
    parser.add_argument("--models", type=lambda s: s.split(";"), default=list(MODELS), help="models, by semicolon")
    parser.add_argument("--out", type=Path, default=Path("runs/real_data"))
    parser.add_argument("--impac", type=Path, default=IMPAC_DIR, help="folder of the IMPAC files")
    parser.add_argument("--folds", type=int, default=NUM_FOLDS, help="how many of the 10 folds")
    parser.add_argument("--seed", type=int, default=0, help="seed of the folds")
    arguments = parser.parse_args()
    if unknown := set(arguments.models) - set(MODELS):
        parser.error(f"there are no models {sorted(unknown)}: choose from {list(MODELS)}")
    torch.set_num_threads(1)
    tables = [read_table(name, arguments.impac) for name in arguments.data]
    folds = {
        (t.name, p): outer_folds(t, p, NUM_FOLDS, arguments.seed)[: arguments.folds]
        for t in tables
        for p in partitions(t)
    }
    todo = [(t, p, k) for t in tables for p in partitions(t) for k in range(len(folds[t.name, p]))]
    with tqdm(total=len(todo) * len(arguments.models), disable=not os.isatty(2)) as bar:
        for table, partition, k in todo:
            files = {m: fold_file(arguments.out, table.name, partition, m, k) for m in arguments.models}
            missing = {model: path for model, path in files.items() if not path.is_file()}
            bar.update(len(files) - len(missing))
            if missing:
                train, test = folds[table.name, partition][k]
                for model in run_fold(table, partition, k, train, test, missing):
                    bar.set_description(f"{table.name}, {partition}, {model}")
                    bar.update()
    write_results(tables, arguments.out, list(MODELS))


if __name__ == "__main__":
    main()
