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

import pytest
import torch
from scipy.stats import beta

from monai_armed.networks.erasure.greatest_root import greatest_root_edge


@pytest.mark.parametrize(("error_df", "group_df"), [(100, 5), (40, 10), (1000, 30)])
def test_of_one_feature_it_is_the_f_test(error_df, group_df):
    edge = greatest_root_edge(1, error_df, group_df)
    exact = beta(group_df / 2, error_df / 2)  # the share of the variance between groups
    assert 0.95 < exact.cdf(edge) < 0.99  # known to be on the safe side where there is one root alone


@pytest.mark.parametrize(("size", "error_df", "group_df"), [(10, 100, 4), (40, 90, 12), (5, 300, 25)])
def test_one_set_in_twenty_without_differences_is_beyond(size, error_df, group_df):
    torch.manual_seed(0)
    draws = 1000
    within, between = (torch.randn(draws, df, size, dtype=torch.double) for df in (error_df, group_df))
    within, between = within.mT @ within, between.mT @ between
    root = torch.linalg.cholesky(within + between)
    whitened = torch.linalg.solve_triangular(root, between, upper=False)
    whitened = torch.linalg.solve_triangular(root, whitened.mT, upper=False)
    beyond = torch.linalg.eigvalsh(whitened)[:, -1] > greatest_root_edge(size, error_df, group_df)
    assert 0.03 < float(beyond.double().mean()) < 0.07


@pytest.mark.parametrize("numbers", [(0, 5, 2), (6, 5, 2), (3, 5, 0)])
def test_numbers_without_a_test_are_refused(numbers):
    with pytest.raises(ValueError, match=rf"num_features = {numbers[0]}, error_df = 5, group_df = {numbers[2]}"):
        greatest_root_edge(*numbers)
