import math

import pytest
import torch
import torchvision.transforms.v2.functional as tvf

from trainable.augment import AUGMENTS, _compose, augment, rotation, scale, shift


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def digits(sample) -> torch.Tensor:
    return torch.from_numpy(sample.train.images[:64]).float() / 255


@pytest.mark.parametrize("name", AUGMENTS)
def test_each(name, digits):
    strong = {name: AUGMENTS[name].high}
    out = augment(digits, strong, draw())
    assert out.shape == digits.shape
    assert out.min() >= 0
    assert out.max() <= 1.0001
    assert torch.equal(out, augment(digits, strong, draw())), "the same generator gives the same images"
    assert not torch.equal(out, augment(digits, strong, draw(1)))
    assert torch.equal(augment(digits, {name: 0.0}, draw()), digits), "a strength of 0 is off"
    assert 0 <= AUGMENTS[name].default <= AUGMENTS[name].high
    # Each image is changed in its own way.
    same = digits[:1].expand(32, -1, -1, -1)
    assert len(torch.unique(augment(same, strong, draw()).flatten(1), dim=0)) > 8


def test_all_together_keep_most_of_the_ink(digits):
    out = augment(digits, {name: a.default for name, a in AUGMENTS.items()}, draw())
    assert 0.8 < out.sum() / digits.sum() < 1.2


def test_rotation_is_torchvisions(digits):
    theta = rotation(1, 30.0, draw(3))
    angle = math.degrees(math.atan2(theta[0, 1, 0], theta[0, 0, 0]))
    assert abs(angle) <= 30
    ours = augment(digits[:1], {"rotation": 30.0}, draw(3))
    # torchvision turns counter-clockwise for a positive angle; ours maps output to input coordinates.
    theirs = tvf.rotate(digits[:1], angle, interpolation=tvf.InterpolationMode.BILINEAR)
    assert (ours - theirs).abs().max() < 1e-4


def test_ranges():
    shifts = shift(2000, 0.1, draw())[:, :, 2]
    assert shifts.abs().max() <= 0.2  # of half the side
    assert shifts.abs().max() > 0.19
    factors = scale(2000, 0.25, draw())[:, 0, 0]
    assert 0.8 <= factors.min() < 0.81
    assert 1.24 < factors.max() <= 1.25


def test_affine_maps_compose():
    a, b = rotation(3, 20, draw(1)), shift(3, 0.1, draw(2))
    point = torch.tensor([0.3, -0.4, 1.0])
    inner = torch.cat([b @ point, torch.ones(3, 1)], dim=1)
    assert torch.allclose(_compose(a, b) @ point, (a @ inner[:, :, None])[:, :, 0], atol=1e-6)


def test_erasing_erases_that_share():
    white = torch.ones(400, 1, 20, 20)
    out = augment(white, {"erasing": 0.3}, draw())
    erased = (out == 0).flatten(1).any(dim=1)
    assert 0.2 < erased.float().mean() < 0.4
    sides = (out[erased] == 0).any(dim=3).sum(dim=2)
    assert sides.min() >= 3
    assert sides.max() <= 9
