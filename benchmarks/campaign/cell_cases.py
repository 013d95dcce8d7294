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

"""Cell images: tables, files and settings that are wrong or unusual, and a trained model on other images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from monai_armed.bundle.model_file import read_record

from .case import Outcome, either, goes_on, reports, same_as_good, says, table, told
from .cell_edits import (
    another_laboratory,
    column,
    content,
    image,
    names_alone,
    numbered_by_batch,
    pixels,
    renamed,
    rows,
    stack,
    twin,
    white_is_zero,
)
from .study_data import BATCHES, CELLS
from .weights import DAMAGED_RECORD, DAMAGED_WEIGHTS, resumed, trained

IMAGES = len(BATCHES) * CELLS
LABELS = ("1.0", "0.0", "nan", "NA", "True", "False")  # as pandas writes what is 1, 0 or missing


def of_batches(*names: str) -> Callable[[Outcome], None]:
    """The model knows these batches."""

    def check(outcome: Outcome) -> None:
        trained(outcome)
        found = read_record(outcome.place.out / "model.pt")["clusters"]
        assert found == list(names), f"the batches are {found}"

    return check


TRAIN = table(
    "cell_aec/train",
    ("no-folder", "folder does not exist", says("there is no"), {"dataset_dir": "<folder>/none"}),
    ("no-image", "a folder without images", says("holds no cell image"), {"dataset_dir": "<folder>"}),
    ("no-table", "an image as dataset_dir", says("neither a folder|CSV"), {"dataset_dir": "/etc/hostname"}),
    ("names", "images by their names", goes_on(trained), names_alone),
    (
        "strange-name",
        "a name of another form",
        says("not of the form"),
        lambda p: names_alone(p).rename(p.data / "a.png"),
    ),
    (
        "apple-double",
        "._ files of macOS",
        goes_on(trained),
        lambda p: (p.data / f"._{names_alone(p).name}").write_bytes(b"x"),
    ),
    ("no-label", "no column label", says("no column 'label'"), rows(lambda given: given.drop(columns="label"))),
    ("no-rows", "cells.csv without rows", says("no rows"), rows(lambda given: given[:0])),
    ("empty-table", "cells.csv of 0 bytes", says(r"cells\.csv"), content(lambda given: b"")),
    (
        "latin-1",
        "a batch in latin-1",
        goes_on(trained),
        content(lambda c: c.replace(b"150312,", b"K\xf6ln,")),
    ),
    ("semicolons", "semicolons", goes_on(trained), content(lambda given: given.replace(b",", b";"))),
    ("mark", "UTF-8 with a mark", goes_on(trained), content(lambda given: b"\xef\xbb\xbf" + given)),
    ("words", "labels that are words of one's own", says("label"), column("label", lambda labels: labels + "x")),
    (
        "labels",
        "labels as pandas writes them",
        goes_on(trained),
        column("label", lambda s: [LABELS[i % 6] for i in range(len(s))]),
    ),
    ("no-labels", "no labels at all", goes_on(told("label", trained)), column("label", lambda labels: "")),
    ("empty-batch", "a batch is empty", says("batch"), column("batch", lambda batches: ["", *batches[1:]])),
    (
        "blank-batch",
        "a batch with a blank at its end",
        goes_on(of_batches(*BATCHES)),
        column("batch", lambda b: [b[0] + " ", *b[1:]]),
    ),
    ("one-batch", "all of one batch", says("batch"), column("batch", lambda batches: "150312")),
    ("single-cells", "each cell a batch", says("batch"), column("batch", lambda b: [str(i) for i in range(len(b))])),
    (
        "twice",
        "an image in two rows",
        goes_on(told("repeat", trained)),
        rows(lambda given: pd.concat([given, given[:1]])),
    ),
    ("missing", "an image is missing", says("1 of 30 images"), image(lambda path: path.unlink())),
    ("few", "8 cells", either("few|cells", told("few|least")), rows(lambda given: given.groupby("batch").head(4)[:8])),
    ("frames", "a frame that is no number", says("frame"), rows(lambda given: given.assign(frame="x"))),
    (
        "two-labels",
        "a cell with two labels",
        says("label"),
        rows(lambda given: given.assign(cell="1", batch=given["batch"])),
    ),
    (
        "cut",
        "image cut short",
        says("cannot be read"),
        image(lambda path: path.write_bytes(path.read_bytes()[:200]), 4),
    ),
    ("empty", "image of 0 bytes", says("cannot be read"), image(lambda path: path.write_bytes(b""), 4)),
    ("text", "text as image", says("cannot be read"), image(lambda path: path.write_text("image"), 4)),
    ("nan", "pixels that are NaN", says("NaN"), pixels(lambda grey: np.where(grey > 0.5, np.nan, grey))),
    ("float-255", "floats from 0 to 255", says("outside 0 to 1"), pixels(lambda grey: 255 * grey)),
    (
        "int16",
        "signed 16 bits",
        either("integers of 32 bits", trained),
        pixels(lambda grey: (30000 * grey).astype(np.int16)),
    ),
    (
        "12-bits",
        "12 bits in 16",
        goes_on(told("4095|12-bit", trained)),
        pixels(lambda grey: (4095 * grey).astype(np.uint16)),
    ),
    (
        "14-bits",
        "14 bits in 16",
        goes_on(told("14|16383", trained)),
        pixels(lambda grey: (16383 * grey).astype(np.uint16)),
    ),
    (
        "colour",
        "a colour image",
        says("colour"),
        pixels(lambda g: np.stack([g, g / 2, g], -1).__mul__(255).astype(np.uint8), ".png", 4),
    ),
    ("stack", "three planes in a file", says("3 pages|planes|pages"), stack),
    (
        "constant",
        "all images are one grey",
        either("constant|differ|grey", told("constant|differ|same")),
        pixels(lambda g: np.full((64, 64), 99, np.uint8), ".png"),
    ),
)

SETTINGS = table(
    "cell_aec/train",
    *(
        (f"{name}={value}", f"{name} {value}", wanted, {name: value})
        for name, value, wanted in [
            ("image_size", 100, says("image_size|64|multiple")),
            ("image_size", 0, says("size")),
            ("image_size", -64, says("size")),
            ("seen_batches", "['150312','nosuch']", says("nosuch")),
            ("seen_batches", "150312", says("only seen batch")),
            ("seen_batches", "['150312']", says("two|only")),
            ("seen_batches", "[]", says("seen")),
            ("batch_size", 1, says("batch_size|two images")),
            ("erase_epoch", 0, says("erase_epoch|epoch")),
            ("erase_epoch", 9, says("erase_epoch|epoch")),
            ("latent_channels", 0, says("latent_channels")),
            ("channels", "[]", says("channels")),
            ("unknown_probability", 2, says("unknown_probability|prob")),
            ("adversary", "nonsense", says("adversary")),
            ("lambda_class", -1, says("lambda_class")),
            ("lambda_clas", 1, says("lambda_clas\\b.*lambda_class")),
            ("val_interval", 0, says("val_interval")),
            ("amp", "perhaps", says("amp")),
            ("warm_up_epochs", -1, says("warm.up")),
            ("learning_rate", 1e20, says("NaN|diverge|finite")),
        ]
    ),
)


def images(count: int) -> Callable[[Outcome], None]:
    """As many predictions, each with the picture that it names."""

    def check(outcome: Outcome) -> None:
        found = pd.read_csv(outcome.place.out / "predictions.csv")
        assert len(found) == count, f"{len(found)} predictions, {count} images"
        assert found["probability"].between(0, 1).all(), "a probability is no number from 0 to 1"
        for folder in outcome.place.out.iterdir():
            if folder.is_dir() and folder.name.startswith(("fixed", "as_")):
                assert len(list(folder.glob("*.png"))) == count, f"{folder.name} has not {count} pictures"

    return check


def brightness(outcome: Outcome) -> None:
    """White-is-zero images predict the same as those that are stored the usual way (here: as dark at the edge)."""
    from PIL import Image

    pictures = sorted((outcome.place.out / "fixed").glob("*.png"))
    edge = np.mean([np.asarray(Image.open(path))[:4].mean() for path in pictures])
    assert edge < 127, f"the background has a mean of {edge:.0f}, in the images it is dark"


INFERENCE = table(
    "cell_aec/inference",
    ("good", "images and model of the training", goes_on(images(IMAGES))),
    ("no-folder", "folder does not exist", says("there is no"), {"dataset_dir": "<folder>/none"}),
    (
        "one-cut",
        "one image of 30 cut short",
        reports("cannot be read|1 of 30", images(IMAGES - 1)),
        image(lambda p: p.write_bytes(b"x")),
    ),
    (
        "one-nan",
        "one image of 30 with NaN",
        reports("NaN|1 of 30", images(IMAGES - 1)),
        pixels(lambda g: g * np.nan, count=1),
    ),
    ("no-batch", "as a batch that is none", says("as_batches"), {"as_batches": "['nosuch']"}),
    ("one-name", "a name in place of a list of names", either("as_batches", images(IMAGES)), {"as_batches": "150312"}),
    ("numbers", "batches as numbers", either("as_batches", images(IMAGES)), {"as_batches": "[150312,150413]"}),
    ("no-batches", "no batch at all", goes_on(images(IMAGES)), {"as_batches": "[]"}),
    ("new-batches", "batches that the model does not know", goes_on(images(IMAGES)), another_laboratory),
    (
        "other-size",
        "images of another size",
        goes_on(images(IMAGES)),
        pixels(lambda g: (255 * g[:50, :40]).astype(np.uint8), ".png"),
    ),
    ("white-is-zero", "TIFFs in which 0 is white", either("white|photometric", brightness), white_is_zero),
    (
        "same-stem",
        "a.png and a.tif",
        goes_on(images(IMAGES + 1)),
        twin,
    ),
    *DAMAGED_RECORD,
    ("other-model", "weights of the conventional network", says("another"), {"ckpt_path": "<other>/model.pt"}),
)


def partitions(**counts: int) -> Callable[[Outcome], None]:
    """As many images of each partition in evaluated_predictions.csv."""

    def check(outcome: Outcome) -> None:
        found = pd.read_csv(outcome.place.out / "evaluated_predictions.csv")["partition"].value_counts().to_dict()
        found.pop("train", None)
        assert found == counts, f"images by partition: {found}, right is {counts}"

    return check


EVALUATE = table(
    "cell_aec/evaluate",
    ("good", "images and model of the training", goes_on(same_as_good)),
    ("other-split", "another split: trained cells stay out", goes_on(same_as_good), {"seed": 3}),
    ("moved", "the data of the training in another folder", goes_on(told("written to")), lambda place: place.data),
    ("laboratory", "nothing that was trained on", goes_on(partitions(unseen=IMAGES)), another_laboratory),
    # as another study, of which what was trained on is known by what is in it
    ("numbered", "cells numbered anew in each batch", either("trained", partitions(unseen=6)), numbered_by_batch),
    ("renamed", "images of the training under other names", either("trained", partitions(unseen=6)), renamed),
    *DAMAGED_WEIGHTS,
)

RESUME = table("cell_aec/resume", *resumed({"latent_channels": 8}, rows(lambda given: given[:-1])))

CASES = [*TRAIN, *SETTINGS, *INFERENCE, *EVALUATE, *RESUME]
