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

from monai_armed.bundle.finished_model import check_sites, load_part, read_sites, save_model, save_with_z_predictor
from monai_armed.handlers import load_weights
from monai_armed.networks import ARMED, DFNN
from monai_armed.networks.nets import ZPredictor

SITES = ["002", "005", "010"]


def armed() -> ARMED:
    return ARMED(DFNN(3), 3, (3,))


def kept(network: torch.nn.Module, folder) -> None:
    """What training would have kept."""
    folder.mkdir(parents=True)
    torch.save(network.state_dict(), folder / "model.pt")


def test_the_weights_that_training_kept_are_written(tmp_path, capsys):
    trained = armed()
    kept(trained, tmp_path / "network")
    path = save_model(armed(), tmp_path, SITES)
    assert path == tmp_path / "model.pt" and str(path) in capsys.readouterr().out
    x = torch.randn(5, 3)
    torch.testing.assert_close(load_weights(armed(), path).eval()(x), trained.eval()(x))
    assert read_sites(path) == SITES


def test_the_z_predictor_is_calibrated_and_attached(tmp_path, capsys):
    torch.manual_seed(0)
    trained, z_predictor = armed(), ZPredictor(DFNN(3, 3), 3)
    kept(trained, tmp_path / "network")
    kept(z_predictor, tmp_path / "z_predictor")
    x = torch.randn(40, 3)
    held_out = [{"image": x[:20], "cluster": torch.arange(20) % 3}, {"image": x[20:], "cluster": torch.arange(20) % 3}]
    path = save_with_z_predictor(armed(), ZPredictor(DFNN(3, 3), 3), held_out, tmp_path, SITES)
    assert "Z-predictor on 40 held-out samples of 3 seen clusters" in capsys.readouterr().out
    finished = load_weights(armed().attach_z_predictor(ZPredictor(DFNN(3, 3), 3)), path).eval()
    # clusters at random: the calibrated assignment is no surer than chance
    assert finished.z_predictor.temperature > 1
    z = (z_predictor.eval().logits(x) / finished.z_predictor.temperature).softmax(1)
    torch.testing.assert_close(finished(x), trained.eval()(x, z))


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no model .*model\.pt: give the path"):
        read_sites(tmp_path / "model.pt")
    (tmp_path / "model.pt").touch()
    with pytest.raises(FileNotFoundError, match=r"sites\.json.*train first"):
        read_sites(tmp_path / "model.pt")
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*network/model\.pt"):
        save_model(armed(), tmp_path, SITES)


def test_one_part_is_taken_from_another_model(tmp_path):
    torch.manual_seed(0)
    other, net = ARMED(DFNN(3), 3, (3,), adversary="dense"), ARMED(DFNN(3), 3, (3,))
    torch.save(other.state_dict(), tmp_path / "model.pt")
    effects = net.random_effects.loc.clone()
    assert load_part(net, "network", tmp_path / "model.pt") is net
    assert all(torch.equal(a, b) for a, b in zip(net.network.parameters(), other.network.parameters()))
    assert torch.equal(net.random_effects.loc, effects)


def test_a_part_that_cannot_be_taken_is_named(tmp_path):
    path = tmp_path / "model.pt"
    with pytest.raises(FileNotFoundError, match=r"no model .*model\.pt to take the part 'network' .*--network_path"):
        load_part(armed(), "network", path)
    torch.save({"head.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"model\.pt has no part 'network'"):
        load_part(armed(), "network", path)
    torch.save(ARMED(DFNN(4), 3, (4,)).state_dict(), path)
    with pytest.raises(ValueError, match=r"model\.pt is of another shape"):
        load_part(armed(), "network", path)


def test_sites_of_a_model_and_of_the_data():
    check_sites(["10", "31"], [10, 31])
    for sites in (["10"], ["31", "10"], ["10", "32"]):
        with pytest.raises(ValueError, match="trained on 2 sites"):
            check_sites(["10", "31"], sites)
