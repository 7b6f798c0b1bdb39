"""Starting from weights that have been trained: torchvision's, or a network saved here."""

import math
import os
import re
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

from trainable import stored
from trainable.config import TrialConfig
from trainable.errors import BadInput
from trainable.saved import CONFIG, MEND, WEIGHTS, described, missing

# Names in torchvision's files that its modules have given up since.
OLD_NAMES = (
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\."), r"\1\2."),
    (re.compile(r"\.mlp\.linear_1\."), ".mlp.0."),
    (re.compile(r"\.mlp\.linear_2\."), ".mlp.3."),
)
MOST = 0.9  # of a network's tensors, and of the file's: resnet34's file holds all of resnet18's, and twice as many


def start_from(network: nn.Sequential, arch: str, source: str, data) -> tuple[str, ...]:
    """Give a network, Sequential(Normalise, body) of the architecture `arch`, weights that have been trained.

    The first convolution is adapted to the number of channels; kernels of patches and embeddings of positions to
    their number. The classifier stays as it is if it knows other classes; so does Normalise.

    Args:
        source: "torchvision" for the published weights, which are downloaded once; else a folder that
            `trainable.saved` wrote, or a .safetensors file with torchvision's names or ours.
        data: the problem that the network is for (anything with classes).

    Returns:
        The names of the datasets that the weights have seen.

    Raises:
        BadInput: there are no such weights, they cannot be read, or they are another network's.
    """
    classes, path = None, Path(os.path.expanduser(source))
    if source == "torchvision":
        tensors, seen = published(arch), ("imagenet",)
    elif path.is_dir():
        tensors, seen, classes = folder(path, arch)
    elif path.suffix == ".safetensors":
        tensors, seen = read(path), ("unknown",)
    else:
        raise BadInput(
            f"no weights at {source}: it is neither 'torchvision' nor a saved network's folder nor a .safetensors file"
        )
    same_classes = classes is None or classes == tuple(data.classes)
    copy(network[-1], of_body(tensors), same_classes, f"the weights of {source} are not {arch}'s")
    return seen


def published(arch: str) -> dict[str, Tensor]:
    """torchvision's weights for an architecture, from torch hub's cache or the network."""
    try:
        weights = models.get_model_weights(arch).DEFAULT
    except (ValueError, AttributeError) as none:
        raise BadInput(f"torchvision has no weights for {arch}; give a folder or a .safetensors file") from none
    try:
        tensors = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except Exception as wrong:  # urllib's, the zip reader's, the unpickler's
        line = (str(wrong).splitlines() or [type(wrong).__name__])[0]
        cache = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        raise BadInput(f"no weights from {weights.url} ({line}); is there a network, and is {cache}, if there, whole?") from wrong
    for pattern, name in OLD_NAMES:
        tensors = {pattern.sub(name, key): tensor for key, tensor in tensors.items()}
    return tensors


def folder(path: Path, arch: str) -> tuple[dict[str, Tensor], tuple[str, ...], tuple[str, ...]]:
    """The tensors of a saved network, the datasets they have seen, and the classes it knows."""
    if not (path / CONFIG).exists():
        raise missing(path, CONFIG)
    about, problem = described(stored.content(path / CONFIG, mend=MEND), path / CONFIG)
    other = about["config"].get("arch", TrialConfig.arch)
    if other != arch:
        raise BadInput(f"the network in {path} is a {other}, not a {arch}")
    return read(path / WEIGHTS, about["files"].get(WEIGHTS)), problem.seen, problem.classes


def read(path: Path, digest: str | None = None) -> dict[str, Tensor]:
    """The tensors of a file; raises BadInput where it is damaged, or has another digest."""
    if not path.exists():
        raise BadInput(f"no weights at {path}: there is no such file")
    content = stored.content(path, mend=MEND, times=2)
    if digest:
        stored.verify(content, digest, path, CONFIG, MEND)
    try:
        tensors = safetensors.torch.load(content)
    except safetensors.SafetensorError as wrong:
        raise BadInput(f"{path} is damaged or no safetensors file: {str(wrong).splitlines()[0]}") from wrong
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise BadInput(f"{path} is damaged: {name} has a value that is no finite number; {MEND}")
    return tensors


def of_body(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The body's tensors by torchvision's names: in our files they follow Normalise's."""
    if "0.mean" not in tensors:
        return tensors
    return {name.removeprefix("1."): tensor for name, tensor in tensors.items() if name.startswith("1.")}


@torch.no_grad()
def copy(body: nn.Module, tensors: dict[str, Tensor], same_classes: bool, complaint: str):
    """Copy the tensors that fit into `body`.

    Raises:
        BadInput: `complaint`, if fewer than MOST of the tensors fit or find a place, the classifier's not counted.
    """
    layers = [name for name, module in body.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    head = f"{layers[-1]}."
    stem = next((f"{name}.weight" for name in layers if isinstance(body.get_submodule(name), nn.Conv2d)), "")
    counted = fit = 0
    for name, own in body.state_dict().items():
        given = tensors.get(name)
        if given is not None:
            given = adapted(given, own, name == stem)
        if name.startswith(head):
            if given is not None and same_classes:
                own.copy_(given)
        elif own.is_floating_point():  # and not a table of indices or a count of batches
            counted += 1
            fit += given is not None
            if given is not None:
                own.copy_(given)
    there = sum(tensor.is_floating_point() and not name.startswith(head) for name, tensor in tensors.items())
    if fit < MOST * max(counted, there):
        raise BadInput(f"{complaint}: {fit} of its {there} tensors fit, of {counted} that the network has")


def adapted(given: Tensor, own: Tensor, stem: bool) -> Tensor | None:
    """`given` in the shape of `own`, or None if it does not fit."""
    if given.shape == own.shape:
        return given
    if stem and given.dim() == 4 and given.shape[0] == own.shape[0]:
        return patches(channels(given.float(), own.shape[1]), own.shape[2:])
    if given.dim() == 3 == own.dim() and given.shape[0] == own.shape[0] == 1 and given.shape[2] == own.shape[2]:
        return positions(given.float(), own.shape[1])
    return None


def channels(kernel: Tensor, n: int) -> Tensor:
    """Kernels [out, channels, h, w] for `n` channels, the responses to a grey image unchanged (as timm does)."""
    old = kernel.shape[1]
    if n == 1:
        return kernel.sum(1, keepdim=True)
    return kernel if n == old else kernel.repeat(1, -(-n // old), 1, 1)[:, :n] * (old / n)


def patches(kernel: Tensor, size: tuple[int, int]) -> Tensor:
    """Kernels [out, channels, h, w] of another size, the response to an even image unchanged."""
    if kernel.shape[2:] == size:
        return kernel
    share = kernel.shape[2] * kernel.shape[3] / (size[0] * size[1])
    return F.interpolate(kernel, size, mode="bicubic", antialias=True) * share


def positions(given: Tensor, n: int) -> Tensor | None:
    """vit's embeddings [1, 1 + old * old, width] for n = 1 + new * new places, the class token's the first."""
    old, new = math.isqrt(given.shape[1] - 1), math.isqrt(n - 1)
    if 1 + old * old != given.shape[1] or 1 + new * new != n:
        return None
    grid = given[:, 1:].transpose(1, 2).unflatten(2, (old, old))
    grid = F.interpolate(grid, (new, new), mode="bicubic", antialias=True)
    return torch.cat([given[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)
