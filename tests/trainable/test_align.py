import pytest
import torch

from trainable.align import ALIGNMENTS, align
from trainable.archs import build_network
from trainable.augment import augment, warp
from trainable.config import TrialConfig
from trainable.errors import BadInput

ALIGNING = [name for name in ALIGNMENTS if name != "none"]


@pytest.fixture
def digits(sample) -> torch.Tensor:
    return torch.from_numpy(sample.train.images[:256]).float() / 255


def sheared(images: torch.Tensor, slope: float, wider: float = 1.0) -> torch.Tensor:
    maps = torch.eye(3).repeat(len(images), 1, 1)
    maps[:, 0, 0], maps[:, 0, 1] = 1 / wider, slope
    return warp(images, maps)


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).abs().mean().item()


@pytest.mark.parametrize("how", ALIGNING)
def test_what_leans_otherwise_is_brought_into_the_same_frame(how, digits):
    changed = sheared(digits, 0.25)
    assert distance(align(changed, how), align(digits, how)) < 0.35 * distance(changed, digits)


def test_moments_bring_widths_nearer_and_slant_does_not(digits):
    changed = sheared(digits, 0.0, wider=0.8)
    before = distance(changed, digits)
    assert distance(align(changed, "moments"), align(digits, "moments")) < 0.6 * before
    assert distance(align(changed, "slant"), align(digits, "slant")) > 0.6 * before


@pytest.mark.parametrize("how", ALIGNING)
def test_white_on_black_is_black_on_white(how, digits):
    inverse = 1 - align(1 - digits, how)
    inside = slice(6, 22)  # beyond the image there is black
    assert distance(inverse[..., inside, inside], align(digits, how)[..., inside, inside]) < 0.01


@pytest.mark.parametrize("how", ALIGNMENTS)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 17, 32), (3, 8, 8)])
def test_any_image(how, shape):
    for images in (torch.zeros(4, *shape), torch.ones(4, *shape), torch.rand(4, *shape)):
        out = align(images, how)
        assert out.shape == images.shape
        assert out.isfinite().all()
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(align(images, how), out), "positions are exact in bf16 too"


@pytest.mark.parametrize("how", ALIGNMENTS)
def test_a_network_aligns_what_it_is_shown_but_not_what_it_is_trained_with(how, sample, digits):
    network = build_network(TrialConfig(align=how), sample)
    assert torch.equal(network[0].train()(digits), network[0].eval()(digits)) == (how == "none")
    assert torch.allclose(network[0].eval()(digits), (align(digits, how) - network[0].mean) / network[0].std)


@pytest.mark.parametrize("how", ALIGNING)
def test_augmentation_comes_after_it_in_one_interpolation(how, digits):
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(augment(digits, {}, generator, ALIGNMENTS[how](digits)), align(digits, how))
    once = augment(digits, {"rotation": 10.0}, torch.Generator().manual_seed(0), ALIGNMENTS[how](digits))
    twice = augment(align(digits, how), {"rotation": 10.0}, torch.Generator().manual_seed(0))
    assert distance(once, twice) < 0.02


def test_an_unknown_one_is_refused_with_the_known_ones():
    with pytest.raises(BadInput, match="none, slant, moments"):
        TrialConfig(align="upright")
