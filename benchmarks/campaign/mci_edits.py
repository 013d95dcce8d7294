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

"""What is done to the table of the MCI study before a case, and checks of what it is read as."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from monai_armed.bundle.model_file import read_record

from .case import Check, Outcome, Place
from .weights import trained


def visits(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Place], None]:
    """An edit of the table."""

    def edit(place: Place) -> None:
        path = place.data / "ADNIMERGE.csv"
        change(pd.read_csv(path, dtype=str, keep_default_na=False)).to_csv(path, index=False)

    return edit


def content(change: Callable[[bytes], bytes]) -> Callable[[Place], object]:
    """An edit of the bytes of the table."""

    def edit(place: Place) -> None:
        path = place.data / "ADNIMERGE.csv"
        path.write_bytes(change(path.read_bytes()))

    return edit


def values(column: str, change: Callable[[pd.Series], pd.Series | str]) -> Callable[[Place], None]:
    """An edit of a column."""
    return visits(lambda given: given.assign(**{column: change(given[column])}))


def some(value: str, every: int = 5) -> Callable[[pd.Series], pd.Series]:
    """Another value in every fifth row."""
    return lambda column: column.where([i % every > 0 for i in range(len(column))], value)


def at_follow_up(change: Callable[[pd.Series], pd.Series]) -> Callable[[Place], None]:
    """An edit of the diagnoses at 24 months."""

    def edit(given: pd.DataFrame) -> pd.DataFrame:
        rows = given["VISCODE"] == "m24"
        given.loc[rows, "DX"] = change(given.loc[rows, "DX"])
        return given

    return visits(edit)


def _follow_up(outcome: Outcome) -> pd.Series:
    given = pd.read_csv(outcome.place.data / "ADNIMERGE.csv", dtype=str, keep_default_na=False)
    return given[given["VISCODE"] == "m24"].set_index("PTID")["DX"]


def labels(of: dict[str, int | None]) -> Check:
    """The label that each diagnosis of the table gives; subjects of one with None are no subjects of the study."""

    def check(outcome: Outcome) -> None:
        found = (
            pd.read_csv(outcome.place.out / "evaluated_predictions.csv")
            .drop_duplicates("subject")
            .set_index("subject")["label"]
        )
        known = _follow_up(outcome)
        for word, label in of.items():
            those = found[found.index.intersection(known.index[known == word])]
            if label is None:
                assert those.empty, f"{len(those)} subjects with {word!r} have the label {those.iloc[0]}"
            else:
                assert len(those) and (those == label).all(), f"subjects with {word!r} have the labels {set(those)}"

    return check


def mean_of(column: str, low: float, high: float) -> Check:
    """The mean of a feature in training lies where such subjects' does."""

    def check(outcome: Outcome) -> None:
        trained(outcome)
        features = read_record(outcome.place.out / "model.pt")["features"]
        mean = next(feature["mean"] for feature in features if feature["column"] == column)
        assert low < mean < high, f"the mean of {column} is {mean:.1f}, not between {low} and {high}"

    return check


def folder(name: str) -> Callable[[Place], None]:
    """A folder in the place of the table."""
    return lambda place: ((place.data / name).unlink(), (place.data / name).mkdir(), None)[2]


def emptied(given: pd.DataFrame) -> pd.DataFrame:
    """The table without any feature of the first subject."""
    features = [name for name in given if name not in ("RID", "PTID", "SITE", "VISCODE", "DX", "DX_bl")]
    given.loc[given.index[:3], features] = ""
    return given
