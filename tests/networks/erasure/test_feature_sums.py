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

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from monai_armed.networks.erasure import FeatureSums

SIZE, CLUSTERS, CLASSES, SAMPLES = 6, 4, 3, 90


@pytest.fixture
def samples():
    """Features, clusters and classes, some of which are not known."""
    torch.manual_seed(0)
    return (
        torch.randn(SAMPLES, SIZE) * 3 + 100,
        torch.randint(-1, CLUSTERS, (SAMPLES,)),
        torch.randint(-1, CLASSES, (SAMPLES,)),
    )


def sums_of(samples, batch_size=SAMPLES, **options):
    sums = FeatureSums(SIZE, CLUSTERS, **(options or {"num_classes": CLASSES}))
    for batch in zip(*(tensor.split(batch_size) for tensor in samples)):
        sums.update(*batch)
    return sums


def same(sums, other):
    for name, tensor in sums.state_dict().items():
        torch.testing.assert_close(tensor, other.state_dict()[name], rtol=1e-13, atol=0)


def test_sums_are_those_of_each_cluster_and_class(samples):
    features, cluster, label = samples
    sums = sums_of(samples)
    for row in range(-1, CLUSTERS):  # -1, not known, is the last
        for column in range(-1, CLASSES):
            chosen = features[(cluster == row) & (label == column)].double()
            assert sums.count[row, column] == len(chosen)
            torch.testing.assert_close(sums.total[row, column], chosen.sum(dim=0))
    torch.testing.assert_close(sums.second, features.double().T @ features.double())


def test_order_and_size_of_the_batches_do_not_matter(samples):
    shuffled = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(1))
    same(sums_of(samples), sums_of([tensor[shuffled] for tensor in samples], batch_size=7))


def test_two_places_send_each_other_their_sums_alone(samples):
    here, there = sums_of([t[:50] for t in samples]), sums_of([t[50:] for t in samples])
    sent = {name: tensor.clone() for name, tensor in there.state_dict().items()}
    here.merge(sent)
    there_alone = sums_of([t[50:] for t in samples])
    there.merge(sums_of([t[:50] for t in samples]))
    same(here, sums_of(samples))
    same(there, sums_of(samples))
    fresh = sums_of([t[:0] for t in samples])
    fresh.merge(sent)
    same(fresh, there_alone)


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="PyTorch was built without gloo")
def test_processes_come_to_the_same_as_one(samples, tmp_path):
    torch.save(samples, tmp_path / "samples.pt")
    commands = [[sys.executable, __file__, str(rank), str(tmp_path)] for rank in range(2)]
    processes = [subprocess.Popen(command) for command in commands]
    assert [process.wait() for process in processes] == [0, 0]
    for rank in range(2):
        sums = sums_of([tensor[:0] for tensor in samples])
        sums.merge(torch.load(tmp_path / f"{rank}.pt"))
        same(sums, sums_of(samples))


def _sum_up(rank: int, folder: Path) -> None:
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    sums = sums_of([tensor[rank::2] for tensor in torch.load(folder / "samples.pt")])
    sums.all_reduce()
    torch.save(sums.state_dict(), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_continuous_labels_are_further_columns_and_not_known_ones_no_cell(samples):
    features, cluster, _ = samples
    values = torch.randn(SAMPLES, 2)
    values[::9, 1] = torch.nan
    known = values.isfinite().all(dim=1)
    sums = sums_of((features, cluster, values), num_values=2)
    both = torch.cat([features, torch.where(known[:, None], values, 0.0)], dim=1).double()
    torch.testing.assert_close(sums.second, both.T @ both)
    torch.testing.assert_close(sums.total[2, 0], both[(cluster == 2) & known].sum(dim=0))
    torch.testing.assert_close(sums.total[:, 1].sum(dim=0), both[~known].sum(dim=0))


def test_a_map_is_one_sample_its_mean(samples):
    maps = torch.randn(SAMPLES, SIZE, 3, 2)
    same(sums_of((maps, *samples[1:])), sums_of((maps.mean(dim=(2, 3)), *samples[1:])))


def test_labels_as_losses_want_them_and_none(samples):
    features, cluster, label = samples
    same(sums_of((features, cluster, label.float().unsqueeze(1))), sums_of(samples))
    sums = FeatureSums(SIZE, CLUSTERS, CLASSES)
    sums.update(features, cluster)
    assert sums.count[:, :-1].sum() == 0 and sums.count[:, -1].sum() == SAMPLES


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_features": 0, "num_clusters": 2}, "num_features must be at least 1, got 0"),
        ({"num_features": 2, "num_clusters": 0}, "num_clusters must be at least 1, got 0"),
        ({"num_features": 2, "num_clusters": 2, "num_values": -1}, "num_values must be at least 0, got -1"),
        ({"num_features": 2, "num_clusters": 2, "num_classes": 2, "num_values": 1}, "cannot both be given"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FeatureSums(**options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ((torch.randn(5, SIZE + 1), None, None), r"features must be \(5, 6\)"),
        ((None, torch.zeros(4, dtype=torch.long), None), r"features must be \(4, 6\)"),
        ((None, torch.zeros(5), None), "cluster must be an integer index"),
        ((None, torch.full((5,), CLUSTERS), None), "cluster is from 4 to 4: it must be from 0 to 3"),
        ((None, torch.full((5,), -2), None), "cluster is from -2 to -2"),
        ((None, None, torch.full((5,), CLASSES)), "label is from 3 to 3"),
        ((None, None, torch.full((5,), 0.5)), "whole number, got fractions"),
        ((None, None, torch.zeros(4)), "one class for each of 5 samples, got 4"),
    ],
)
def test_samples_that_do_not_fit_are_refused_and_not_counted(change, message):
    good = torch.randn(5, SIZE), torch.zeros(5, dtype=torch.long), torch.zeros(5, dtype=torch.long)
    sums = FeatureSums(SIZE, CLUSTERS, CLASSES)
    with pytest.raises(ValueError, match=message):
        sums.update(*(given if given is not None else fits for given, fits in zip(change, good)))
    assert all(not tensor.any() for tensor in sums.state_dict().values())


def test_values_and_sums_of_other_labels_are_refused(samples):
    with pytest.raises(ValueError, match="label must have 2 values a sample, got 1"):
        FeatureSums(SIZE, CLUSTERS, num_values=2).update(torch.randn(5, SIZE), torch.zeros(5).long(), torch.randn(5))
    with pytest.raises(ValueError, match=r"'total' of shape \(5, 2, 6\), got \(5, 4, 6\)|'count' of shape"):
        FeatureSums(SIZE, CLUSTERS).merge(sums_of(samples))
    with pytest.raises(ValueError, match=r"'second' of shape .* got none"):
        sums = sums_of(samples)
        sums.merge({name: tensor for name, tensor in sums.state_dict().items() if name != "second"})
    same(sums, sums_of(samples))


if __name__ == "__main__":
    _sum_up(int(sys.argv[1]), Path(sys.argv[2]))
