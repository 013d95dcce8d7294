"""The secure sum: exact, and nothing to be read from a part of it."""

from __future__ import annotations

import pytest
import torch

from monai_armed.federated.masks import Masks, unmasked_sum


def hidden(values: torch.Tensor) -> list[torch.Tensor]:
    """Rows of several hospitals, each behind its masks."""
    masks = [Masks() for _ in values]
    return [one.hide(row, [other.key for other in masks]) for one, row in zip(masks, values)]


@pytest.mark.parametrize("hospitals", [1, 2, 5])
def test_the_masks_cancel_and_the_sum_is_exact(hospitals):
    generator = torch.Generator().manual_seed(hospitals)
    whole = torch.randint(-(2**40), 2**40, (hospitals, 100), generator=generator)
    fractions = whole.double() * 2.0 ** torch.randint(-60, 9, (100,), generator=generator)  # all parts of 2^-64
    assert torch.equal(unmasked_sum(hidden(fractions)), fractions.sum(dim=0))


def test_a_part_of_the_hospitals_sums_to_noise():
    parts = hidden(torch.ones(4, 2000, dtype=torch.double))
    for some in ([parts[0]], parts[:3]):
        bits = torch.stack(some).sum(dim=0).unsqueeze(-1).bitwise_right_shift(torch.arange(8)).bitwise_and(1).double()
        assert (bits.mean(dim=0) - 0.5).abs().max() < 0.06  # 128 bits, s.e. .011
        assert unmasked_sum(some).sub(len(some)).abs().min() > 2.0**40


def test_the_same_numbers_are_hidden_otherwise_each_time():
    first, second = (hidden(torch.zeros(2, 50, dtype=torch.double))[0] for _ in range(2))
    assert (first != second).any(dim=1).all()


def test_without_the_key_of_one_the_others_masks_do_not_cancel():
    one, other, third = Masks(), Masks(), Masks()
    ones, keys = torch.ones(3, dtype=torch.double), [one.key, other.key]
    parts = [one.hide(ones, [*keys, third.key]), other.hide(ones, keys)]
    assert unmasked_sum(parts).sub(2).abs().min() > 2.0**40


def test_what_is_too_large_is_refused():
    masks = Masks()
    with pytest.raises(ValueError, match="1e\\+20 is too large"):
        masks.hide(torch.tensor([1e20], dtype=torch.double), [masks.key])
