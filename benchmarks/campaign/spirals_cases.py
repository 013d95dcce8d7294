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

"""Spirals: arrays and points that are wrong; and settings, which are those of every bundle, tried on the quickest."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from .case import Outcome, Place, either, goes_on, same_as_good, says, table, told
from .weights import DAMAGED_WEIGHTS, resumed, trained

Arrays = dict[str, np.ndarray]


def arrays(change: Callable[[Arrays], Arrays | None]) -> Callable[[Place], None]:
    """An edit of the arrays of simulation 1."""

    def edit(place: Place) -> None:
        path = place.data / "sim1.npz"
        with np.load(path) as archive:
            given = dict(archive)
        np.savez(path, allow_pickle=True, **(change(given) or given))

    return edit


def only(name: str, value: Callable[[np.ndarray], np.ndarray]) -> Callable[[Place], None]:
    """An edit of one array."""
    return arrays(lambda given: {**given, name: value(given[name])})


def points(text: str | bytes) -> Callable[[Place], None]:
    """A CSV of points to be classified."""
    content = text if isinstance(text, bytes) else text.encode()
    return lambda place: (place.folder / "points.csv").write_bytes(content)


def cut(place: Place) -> None:
    """The archive as it is when a copy was interrupted."""
    path = place.data / "sim1.npz"
    path.write_bytes(path.read_bytes()[:1000])


def flipped(place: Place) -> None:
    """The archive with wrong bytes in the middle."""
    path = place.data / "sim1.npz"
    content = bytearray(path.read_bytes())
    content[500:540] = bytes(40)
    path.write_bytes(bytes(content))


def hostile(given: Arrays) -> Arrays:
    """An array that runs code where it is unpickled."""
    return {**given, "y": np.array([Touch()] * len(given["y"]), dtype=object)}


class Touch:
    def __reduce__(self) -> tuple:
        return (print, ("code of the file was run",))


def predicted(count: int) -> Callable[[Outcome], None]:
    """So many predictions, all of them numbers between 0 and 1."""

    def check(outcome: Outcome) -> None:
        table = pd.read_csv(outcome.place.out / "predictions.csv")
        assert len(table) == count, f"{len(table)} predictions, {count} points"
        assert table["probability"].between(0, 1).all(), "a probability is no number from 0 to 1"

    return check


def is_file(*parts: str) -> Callable[[Outcome], None]:
    """The command has left a file in the case's folder."""

    def check(outcome: Outcome) -> None:
        path = outcome.place.folder.joinpath(*parts)
        assert path.is_file(), f"there is no {path}"

    return check


def all_arrays(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Place], None]:
    """An edit of all that has a row for each point."""
    return arrays(lambda given: {name: change(v) if len(v) == 180 else v for name, v in given.items()})


READING = table(
    "spirals/train",
    ("no-folder", "folder does not exist", says("no spiral data at .*none"), {"dataset_dir": "<folder>/none"}),
    ("no-archive", "text as sim1.npz", says("not an .npz archive"), lambda p: (p.data / "sim1.npz").write_text("x")),
    ("cut", "archive cut short", says(r"sim1\.npz.*(not an \.npz|damaged|cannot be read)"), cut),
    ("flipped", "archive with wrong bytes", says(r"sim1\.npz.*(damaged|cannot be read)"), flipped),
    (
        "lacks-array",
        "archive without radius",
        says(r"lacks the arrays \['radius'\]"),
        arrays(lambda given: {name: value for name, value in given.items() if name != "radius"}),
    ),
    ("pickled-array", "array of objects that run code", says(r"sim1\.npz.*object"), arrays(hostile)),
    ("nan", "points that are NaN", says("NaN|finite"), only("x", lambda x: np.where(x > 0.5, np.nan, x))),
    ("inf", "a point at infinity", says("finite"), only("x", lambda x: np.where(x == x.max(), np.inf, x))),
    ("lengths", "fewer labels than points", says(r"\by\b|label"), only("y", lambda y: y[:170])),
    ("three-classes", "labels 0, 1 and 2", says(r"\by\b|label"), only("y", lambda y: y + (np.arange(len(y)) % 2))),
    ("one-class", "all labels are 0", says("class|label"), only("y", lambda y: y * 0)),
    ("one-cluster", "all points of one cluster", says("cluster"), only("cluster", lambda c: c * 0)),
    ("cluster--1", "unknown clusters in training", says("cluster"), only("cluster", lambda c: c - 1)),
    (
        "cluster-half",
        "clusters between 0 and 1",
        says("cluster"),
        only("cluster", lambda c: c + np.arange(180) % 2 / 2),
    ),
    ("text", "features are text", says(r"\bx\b|feature|number"), only("x", lambda x: x.astype("U8"))),
    ("one-dimension", "features (N,)", says(r"\bx\b|feature|shape"), only("x", lambda x: x[:, 0])),
    ("two-points", "a cluster with two points", says("few|least|cluster"), all_arrays(lambda v: v[:122])),
    ("no-points", "arrays without points", says("no points|empty|few"), all_arrays(lambda v: v[:0])),
    ("gap", "clusters 0 and 2, no 1", either("cluster", trained), only("cluster", lambda c: np.where(c == 1, 2, c))),
    ("null", "dataset_dir null: the simulation", goes_on(trained), {"dataset_dir": "null", "batch_size": 1000}),
    ("none", "dataset_dir None", goes_on(trained), {"dataset_dir": "None", "batch_size": 1000}),
)

SETTINGS = table(
    "spirals/train",
    *(
        (f"{name}={value}", f"{name} {value}", wanted, {name: value})
        for name, value, wanted in [
            ("simulation", 4, says("simulation must be|no spiral data at .*sim4")),
            ("simulation", "one", says("simulation|no spiral data at .*simone")),
            ("max_epochs", 0, says("max_epochs")),
            ("max_epochs", -1, says("max_epochs")),
            ("max_epochs", "abc", says("max_epochs")),
            ("max_epochs", 1.5, says("max_epochs")),
            ("batch_size", 0, says("batch_size")),
            ("batch_size", -1, says("batch_size")),
            ("batch_size", "abc", says("batch_size")),
            ("batch_size", 2.5, says("batch_size")),
            ("batch_size", 100000, says("batch_size")),
            ("learning_rate", -1, says("learning.rate")),
            ("learning_rate", "abc", says("learning.rate")),
            ("learning_rate", float("nan"), says("learning.rate|NaN")),
            ("learning_rate", 1e30, says("NaN|diverge|finite")),
            ("lambda_adversary", -1, says("lambda_adversary")),
            ("lambda_adversary", "much", says("lambda_adversary")),
            ("lambda_fixed", -0.5, says("lambda_fixed")),
            ("lambda_kl", float("nan"), says("lambda_kl|NaN|finite")),
            ("lambda_kl", float("inf"), says("lambda_kl|finite|NaN")),
            ("seed", "abc", says("seed")),
            ("seed", -1, says("seed")),
            ("seed", 1.5, says("seed")),
            ("hidden_channels", "abc", says("hidden_channels")),
            ("hidden_channels", "[0]", says("hidden_channels")),
            ("hidden_channels", "[-4,8]", says("hidden_channels")),
            ("adversary_classes", -1, says("adversary_classes|num_classes")),
            ("val_interval", 0, says("val_interval")),
            ("device", "cuda", says("device|cuda")),
            ("device", "toaster", says("toaster")),
            ("lamda_adversary", 5, says("lamda_adversary.*lambda_adversary")),
            ("max_epoch", 3, says("max_epoch\\b.*max_epochs")),
            ("train#trainer#max_epoch", 3, says("max_epoch\\b.*max_epochs")),
            ("Seed", 3, says("Seed.*seed")),
            ("resume", "maybe", says("resume")),
            ("resume", "true", goes_on(told("no checkpoint", trained))),
        ]
    ),
)

FOLDERS = table(
    "spirals/train",
    (
        "output-is-file",
        "output_dir is a file",
        says("output_dir|--out"),
        {"output_dir": "<folder>/file"},
        lambda place: (place.folder / "file").touch(),
    ),
    ("output-nowhere", "output_dir below a file", says("output_dir|cannot be"), {"output_dir": "/dev/null/out"}),
    ("output-null", "output_dir null", says("output_dir"), {"output_dir": "null"}),
    (
        "unicode",
        "output_dir with an umlaut",
        goes_on(is_file("Aus gäbe", "model.pt")),
        {"output_dir": "<folder>/Aus gäbe"},
    ),
)

GOOD = "x1,x2,cluster\n0.1,0.2,0\n-0.3,0.4,2\n"
POINTS = table(
    "spirals/inference",
    *(
        (name, what, wanted, {"points": "<folder>/points.csv"}, points(text))
        for name, what, wanted, text in [
            ("good", "two points", goes_on(predicted(2)), GOOD),
            ("no-cluster", "no column cluster", goes_on(predicted(1)), "x1,x2\n0.1,0.2\n"),
            ("no-x1", "no column x1", says("x1"), "a,x2\n1,2\n"),
            ("blank-in-head", "' x2' as column", either("x2", predicted(1)), "x1, x2\n0.1,0.2\n"),
            ("text", "text in a cell", says("number"), "x1,x2\n0.1,abc\n"),
            ("decimal-comma", "decimal commas", says("number|comma"), 'x1,x2\n"0,1","0,2"\n'),
            ("empty-cell", "an empty cell", says("empty|number"), "x1,x2\n0.1,\n"),
            ("infinite", "an infinite cell", says("infinite|number"), "x1,x2\n0.1,inf\n"),
            ("too-large", "1e300, beyond single precision", says("infinite|large|number"), "x1,x2\n0.1,1e300\n"),
            ("empty-file", "an empty file", says("points.csv"), ""),
            ("head-alone", "a head without rows", says("points.csv.*no rows|no points"), "x1,x2\n"),
            ("cluster-99", "a cluster beyond the model's", says("cluster.*99"), "x1,x2,cluster\n0.1,0.2,99\n"),
            ("cluster--2", "a negative cluster", says("cluster.*-2"), "x1,x2,cluster\n0.1,0.2,-2\n"),
            ("cluster-half", "cluster 1.5", says("cluster"), "x1,x2,cluster\n0.1,0.2,1.5\n"),
            ("cluster-text", "cluster 'one'", says("cluster|number"), "x1,x2,cluster\n0.1,0.2,one\n"),
            (
                "cluster-empty",
                "cluster of one point only",
                either("cluster.*(empty|number)", predicted(2)),
                "x1,x2,cluster\n0.1,0.2,1\n0.1,0.2,\n",
            ),
            ("probes", "probes for a model without", either("x3|features", predicted(1)), "x1,x2,x3,x4\n1,2,3,4\n"),
            ("semicolons", "semicolons", says("x1|comma"), "x1;x2\n0.1;0.2\n"),
            ("utf-16", "UTF-16, as spreadsheets save it", either("UTF", predicted(2)), GOOD.encode("utf-16")),
            ("mark", "UTF-8 with a mark", goes_on(predicted(2)), GOOD.encode("utf-8-sig")),
            ("binary", "a spreadsheet as CSV", says("points.csv"), b"PK\x03\x04" + bytes(range(256)) * 4),
            ("ragged", "rows with more cells than the head", says("points.csv"), "x1,x2\n1,2,3,4\n1,2,3\n"),
        ]
    ),
    ("no-file", "no such file", says("no file of points"), {"points": "<folder>/none.csv"}),
    ("folder", "a folder as file of points", says("points"), {"points": "<folder>"}),
)

EVALUATED = table(
    "spirals/evaluate",
    ("good", "data and model of the training", goes_on(is_file("out", "metrics.csv"))),
    ("other-split", "another split: trained on a part of the test", either("trained", same_as_good), {"seed": 1}),
    ("other-draw", "other points", says("trained|data"), only("x", lambda x: x + 1)),
    ("other-size", "another size than the checkpoint's", says("another"), {"hidden_channels": "[8]"}),
    ("other-simulation", "points with more features", says("another|trained|features"), {"simulation": 3}),
    (
        "clusters",
        "more clusters than the model's",
        says("cluster|another"),
        only("cluster", lambda c: c + np.arange(180) % 2),
    ),
    *DAMAGED_WEIGHTS,
)

RESUMED = table("spirals/resume", *resumed({"hidden_channels": "[8]"}, only("x", lambda x: x + 1)))

CASES = [*READING, *SETTINGS, *FOLDERS, *POINTS, *EVALUATED, *RESUMED]
