import math

import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as tvf

from trainable.augment import AUGMENTS, augment, elastic, mix, perspective, rotation, scale, shift

MOVING = [name for name, a in AUGMENTS.items() if a.kind != "mix"]
MIXING = [name for name, a in AUGMENTS.items() if a.kind == "mix"]


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def digits(sample) -> torch.Tensor:
    return torch.from_numpy(sample.train.images[:64]).float() / 255


@pytest.mark.parametrize("name", AUGMENTS)
def test_strengths_are_ordered(name):
    a = AUGMENTS[name]
    assert 0 <= a.default <= a.high <= a.limit


@pytest.mark.parametrize("name", MOVING)
def test_each(name, digits):
    strong = {name: AUGMENTS[name].high or 0.5}
    out = augment(digits, strong, draw())
    assert out.shape == digits.shape
    assert out.min() >= 0
    assert out.max() <= 1.0001
    assert torch.equal(out, augment(digits, strong, draw())), "the same generator gives the same images"
    assert not torch.equal(out, augment(digits, strong, draw(1)))
    assert torch.equal(augment(digits, {name: 0.0}, draw()), digits), "a strength of 0 is off"
    # Each image is changed in its own way.
    same = digits[:1].expand(32, -1, -1, -1)
    assert len(torch.unique(augment(same, strong, draw()).flatten(1), dim=0)) > (1 if name == "flip" else 8)


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
    shifts = shift(2000, 0.1, draw())[:, :2, 2]
    assert shifts.abs().max() <= 0.2  # of half the side
    assert shifts.abs().max() > 0.19
    factors = scale(2000, 0.25, draw())[:, 0, 0]
    assert 0.8 <= factors.min() < 0.81
    assert 1.24 < factors.max() <= 1.25


def warp(images: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def test_the_one_warp_is_every_map_in_turn(digits):
    """Pixel by pixel, the long way: elastic displacement added to the homographies' point."""
    strengths = {"rotation": 20.0, "shift": 0.1, "perspective": 0.2, "elastic": 0.1}
    n, g = 8, draw(5)
    maps = rotation(n, 20.0, g) @ shift(n, 0.1, g) @ perspective(n, 0.2, g)
    bumps = F.interpolate(elastic(n, 0.1, g).mT.view(n, 2, 5, 5), size=(28, 28), mode="bicubic", align_corners=True)
    grid = torch.empty(n, 28, 28, 2)
    for i in range(n):
        for y in range(28):
            for x in range(28):
                px, py, pw = maps[i] @ torch.tensor([(2 * x + 1) / 28 - 1, (2 * y + 1) / 28 - 1, 1.0])
                grid[i, y, x] = torch.stack([px / pw, py / pw]) + bumps[i, :, y, x]
    assert (augment(digits[:n], strengths, draw(5)) - warp(digits[:n], grid)).abs().max() < 1e-4


@pytest.mark.parametrize("strengths", [{"rotation": 30.0}, {"rotation": 30.0, "perspective": 1e-9}], ids=["affine", "projective"])
def test_a_turn_of_an_oblong_image_bends_nothing(strengths):
    image = torch.zeros(1, 1, 40, 80)
    image[..., 12:28, 32:48] = 1.0  # a square in the middle keeps its area and its centre
    out = augment(image.expand(16, -1, -1, -1), strengths, draw())
    assert torch.allclose(out.sum(dim=(1, 2, 3)), torch.tensor(256.0), rtol=0.02)
    x = (out.sum(dim=2) * torch.arange(80)).sum(dim=(1, 2)) / out.sum(dim=(1, 2, 3))
    assert torch.allclose(x, torch.tensor(39.5), atol=0.05)
    assert (out.amax(dim=(1, 3)) > 0.5).sum(dim=1).max() <= 24  # the diagonal of 16 x 16 is 22.6


def test_flip(digits):
    out = augment(digits, {"flip": 0.5}, draw())
    turned = [torch.allclose(a, b.flip(2), atol=1e-4) for a, b in zip(out, digits, strict=True)]
    same = [torch.allclose(a, b, atol=1e-4) for a, b in zip(out, digits, strict=True)]
    assert all(t or s for t, s in zip(turned, same, strict=True))
    assert 16 < sum(turned) < 48


@pytest.mark.parametrize("name", MIXING)
def test_mixing_moves_the_target_as_it_moves_the_ink(name):
    """Image i is all i: the mean of its pixels says how much of its neighbour it took."""
    n = 400
    images = torch.zeros(n, 1, 20, 20)
    images[1::2] = 1.0
    labels = torch.arange(n) % 2
    out, targets = mix(images, labels, 2, {name: 0.5}, draw())
    assert torch.allclose(out.mean(dim=(1, 2, 3)), targets[:, 1], atol=1e-5)
    assert torch.allclose(targets.sum(dim=1), torch.ones(n))
    taken = 1 - targets[torch.arange(n), labels]
    assert 0.35 < (taken > 0).float().mean() < 0.6
    assert 0.35 < taken[taken > 0].mean() < 0.65
    again, _ = mix(images, labels, 2, {name: 0.5}, draw())
    assert torch.equal(out, again)


def test_without_mixing_the_targets_are_the_labels(digits):
    labels = torch.arange(64) % 10
    images, targets = mix(digits, labels, 10, {"rotation": 10.0, "mixup": 0.0}, draw())
    assert images is digits
    assert targets is labels


def test_erasing_erases_that_share():
    white = torch.ones(400, 1, 20, 20)
    out = augment(white, {"erasing": 0.3}, draw())
    erased = (out == 0).flatten(1).any(dim=1)
    assert 0.2 < erased.float().mean() < 0.4
    sides = (out[erased] == 0).any(dim=3).sum(dim=2)
    assert sides.min() >= 3
    assert sides.max() <= 9
