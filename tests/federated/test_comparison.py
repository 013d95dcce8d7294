"""The command: pooled, federated and site-only training side by side."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from monai_armed.__main__ import main
from monai_armed.federated.comparison import _deviation

SPIRALS = Path(__file__).parents[2] / "bundles" / "armed_spirals"


def test_the_command_prints_the_three_ways_side_by_side(overrides, tmp_path, capsys):
    settings = [f"--set={name}={value}" for name, value in overrides.items()]
    command = ["federated", "--bundle", str(SPIRALS), "--out", str(tmp_path), "--hospitals", "2", "--rounds", "1"]
    assert main([*command, *settings]) == 0
    table = pd.read_csv(tmp_path / "federated.csv")
    assert list(table["training"][:3]) == ["pooled", "federated", "each hospital alone"]
    assert table["random_effects_deviation"][0] == 0 and (table["random_effects_deviation"][1:] > 0).all()
    assert table[["auroc_mixed", "auroc_fixed"]][:3].apply(lambda column: column.between(0, 1)).all(axis=None)
    assert table["leak"][:3].between(0.5, 1).all()
    assert "each hospital alone" in capsys.readouterr().out


def test_a_deviation_is_relative_to_the_reference():
    reference = pd.DataFrame({"mixed": [1.0, -3.0], "fixed": [0.0, -1.0]})
    assert abs(_deviation(reference.assign(mixed=[1.1, -3.2]), reference) - 0.1) < 1e-12


def test_more_hospitals_than_clusters_are_refused(overrides, tmp_path, capsys):
    settings = [f"--set={name}={value}" for name, value in overrides.items()]
    command = ["federated", "--bundle", str(SPIRALS), "--out", str(tmp_path), "--hospitals", "6"]
    assert main([*command, *settings]) == 2
    assert "of 6 has none of 5 clusters" in capsys.readouterr().err
