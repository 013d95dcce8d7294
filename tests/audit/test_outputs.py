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

"""Logits and probabilities, of one softmax or of labels of their own, of classifiers and of maps."""

from __future__ import annotations

import pytest
import torch

from monai_armed.audit.outputs import Asked, MapScores, class_form, score_of


@pytest.fixture()
def logits() -> torch.Tensor:
    return 3 * torch.randn(40, 3, generator=torch.Generator().manual_seed(0))


def test_sigmoids_of_several_labels_are_known_by_their_sums(logits):
    form = class_form(logits.sigmoid(), Asked(positive=2))
    assert form.independent and form.probabilities and "on its own" in form.said()
    torch.testing.assert_close(score_of(logits.sigmoid(), form).float(), logits[:, 2], rtol=1e-3, atol=1e-3)


def test_logits_are_of_one_softmax_unless_said_otherwise(logits):
    softmax, own = (class_form(logits, Asked(0, multilabel)) for multilabel in (None, True))
    assert "--multilabel" in softmax.said() and "--no-multilabel" in own.said()
    torch.testing.assert_close(score_of(logits, own), logits[:, 0].double())
    p = logits.double().softmax(1)[:, 0]
    torch.testing.assert_close(score_of(logits, softmax), p.logit())
    of_p = class_form(logits.softmax(1), Asked(0))
    torch.testing.assert_close(score_of(logits.softmax(1), of_p), p.logit(), rtol=1e-3, atol=1e-3)


def test_a_whole_number_names_its_output_and_nothing_else_is_guessed(logits):
    assert class_form(logits, Asked(label=2, labels=3)).positive == 2
    assert class_form(logits[:, :2], Asked()).positive == 1
    assert class_form(logits[:, :2], Asked(label=0, labels=2)).positive == 0
    for asked in (Asked(), Asked(label=2, labels=4), Asked(multilabel=True, label=2, labels=3)):
        with pytest.raises(ValueError, match=r"has 3 outputs.*say by --positive_output"):
            class_form(logits, asked)
    with pytest.raises(ValueError, match="--positive_output 3 is none"):
        class_form(logits, Asked(positive=3))


@pytest.mark.parametrize("channels", [1, 2])
def test_maps_of_probabilities_are_as_good_as_those_of_logits(channels):
    g = torch.Generator().manual_seed(1)
    logits, mask = torch.randn(6, channels, 8, 8, generator=g), (torch.rand(6, 1, 8, 8, generator=g) > 0.5).float()
    dice = []
    for maps in (logits, logits.sigmoid() if channels == 1 else logits.softmax(1)):
        scores = MapScores(Asked())
        scores.add(maps[:4], mask[:4])
        scores.add(maps[4:], mask[4:])
        form, _, found = scores.read()
        dice.append(found)
        assert form.probabilities == (maps is not logits)
    torch.testing.assert_close(dice[0], dice[1])
    assert dice[0].max() < 1


def test_one_map_of_several_labels_is_read_on_its_own():
    g = torch.Generator().manual_seed(2)
    p, mask = torch.rand(3, 3, 8, 8, generator=g), torch.rand(3, 3, 8, 8, generator=g) > 0.5
    scores = MapScores(Asked(positive=1))
    scores.add(p, mask)
    form, _, dice = scores.read()
    found, true = p[:, 1].flatten(1) > 0.5, mask[:, 1].flatten(1)
    torch.testing.assert_close(dice, 2 * (found & true).sum(1) / (found.sum(1) + true.sum(1)))
    assert form.independent
    with pytest.raises(ValueError, match="as many pixels"):
        scores.add(p, mask[..., :4])
