"""Images a second of augmentation, one thread, batch 128: our one warp against torchvision's transforms and kornia's.

    python tests/benchmarks/augment.py [--repeats 5] [--json FILE]

ours               `trainable.augment.augment`, from uint8
image by image     torchvision's transforms v2 on uint8 tensors, one after the other, stacked: every image changed in its own way
one for the batch  the same transforms called once on the whole batch. Not the same: all images are changed alike
kornia             its transforms, every image in its own way, if it is installed (not in requirements.txt)

All end in floats [128, channels, side, side] in [0, 1]. The strengths are those of a trial as shipped, and the same with
perspective; the table's foot says by how many pixels elastic distortion and perspective move a pixel on either side.
The ways take turns. Seconds are the process's own on its one core, not the wall's: other work on the machine counts less.
"""

import json
import math
import statistics
import time
from importlib.util import find_spec
from pathlib import Path

import torch
from common import (
    ELASTIC_ALPHA,
    ELASTIC_SIGMA,
    PERSPECTIVE,
    STRENGTHS,
    about,
    displacement,
    show,
    spread,
    table_of,
    torchvision_transform,
    torchvision_warps,
)
from torchvision.transforms import v2

from trainable.augment import augment
from trainable.errors import Parser, positive, run

BATCH = 128
CASES = {f"{side} px {name}": (channels, side) for side, channels, name in ((28, 1, "grey"), (64, 3, "colour"))}
SETS = {"as shipped": STRENGTHS, "and perspective": {**STRENGTHS, "perspective": 0.2}}


def ours(strengths, side):
    generator = torch.Generator().manual_seed(0)
    return lambda images: augment(images.float().div_(255), strengths, generator)


def image_by_image(strengths, side):
    transform = torchvision_transform(strengths, side)
    return lambda images: torch.stack([transform(image) for image in images])


def one_for_the_batch(strengths, side):
    return torchvision_transform(strengths, side)


def kornia(strengths, side):
    if not find_spec("kornia"):
        return None
    from kornia import augmentation as K

    degrees, share, factor = strengths["rotation"], strengths["shift"], strengths["scale"]
    slant = math.degrees(math.atan(strengths["shear"]))
    kernel = int(8 * ELASTIC_SIGMA * side + 1) | 1
    sigma, alpha = (ELASTIC_SIGMA * side,) * 2, (ELASTIC_ALPHA * strengths["elastic"] * side,) * 2
    chain = [K.RandomAffine(degrees, (share, share), (1 / (1 + factor), 1 + factor), (-slant, slant), p=1.0)]
    if "perspective" in strengths:
        chain.append(K.RandomPerspective(PERSPECTIVE * strengths["perspective"], p=1.0))
    chain.append(K.RandomElasticTransform((kernel, kernel), sigma, alpha, p=1.0))
    sequence = torch.nn.Sequential(*chain)
    return lambda images: sequence(images.float().div_(255))


WAYS = {"ours": ours, "image by image": image_by_image, "one for the batch": one_for_the_batch, "kornia": kornia}


def speed(way, images: torch.Tensor, seconds: float) -> float:
    """Images a second over whole batches, for at least so long."""
    began, batches = time.process_time(), 0
    while batches == 0 or time.process_time() < began + seconds:
        way(images)
        batches += 1
    return batches * len(images) / (time.process_time() - began)


def measure(strengths: dict, channels: int, side: int, repeats: int, seconds: float) -> dict:
    """Images a second by way, a figure a turn; nothing for a way that is not installed."""
    images = torch.randint(256, (BATCH, channels, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    ways = {name: make(strengths, side) for name, make in WAYS.items()}
    found = {name: [] for name in WAYS}
    for turn in range(-1, repeats):  # the first only warms up
        for name, way in ways.items():
            if way:
                figure = speed(way, images, seconds if turn >= 0 else 0)
                found[name] += [figure] if turn >= 0 else []
    return found


def moved(name: str, strength: float, side: int) -> dict:
    """By how many pixels one augmentation moves a pixel."""
    transform = v2.Compose(torchvision_warps({name: strength}, side))
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)  # torchvision draws from torch's own generator
    return {
        "ours": displacement(lambda x: augment(x, {name: strength}, generator), side),
        "torchvision": displacement(lambda x: torch.stack([transform(image) for image in x]), side),
    }


def main():
    p = Parser(prog="augment.py", description=__doc__.split("\n")[0])
    p.add_argument("--repeats", type=positive(int), default=5, help="turns a way")
    p.add_argument("--seconds", type=positive(float), default=1.0, help="a turn at least")
    p.add_argument("--json", metavar="FILE", help="write the figures there too")
    args = p.parse_args()
    torch.set_num_threads(1)
    figures = {**about(), "batch": BATCH, "repeats": args.repeats, "images_a_second": {}, "pixels_moved": {}}
    for case, (channels, side) in CASES.items():
        for name, strengths in SETS.items():
            found = measure(strengths, channels, side, args.repeats, args.seconds)
            figures["images_a_second"][f"{case}, {name}"] = found
        figures["pixels_moved"][case] = {
            name: moved(name, SETS["and perspective"][name], side) for name in ("elastic", "perspective")
        }
    ratios = {}
    for case, found in figures["images_a_second"].items():
        pairs = zip(found["ours"], found["image by image"], strict=True)
        ratios[case] = statistics.median(a / b for a, b in pairs)
    figures["times_image_by_image"] = ratios
    report(figures)
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=1))


def report(figures: dict):
    title = f"Augmented images a second, one thread, batch {BATCH}, n = {figures['repeats']} ({figures['device']})"
    table = table_of(title, "images and strengths", "way", "median", "low-high", "ours is times as fast")
    for case, found in figures["images_a_second"].items():
        for way, values in found.items():
            if values:
                times = statistics.median(found["ours"]) / statistics.median(values)
                cells = [f"{statistics.median(values):,.0f}", spread(values), f"{times:.1f}"]
            else:
                cells = ["not installed", "", ""]
            table.add_row(case if way == "ours" else "", way, *cells, end_section=way == "kornia")
    show(table)
    for case, found in figures["pixels_moved"].items():
        each = [f"{name} {by['ours']:.2f} (torchvision's {by['torchvision']:.2f})" for name, by in found.items()]
        print(f"pixels moved, mean, {case}: {', '.join(each)}")
    worst = min(figures["times_image_by_image"], key=figures["times_image_by_image"].get)
    print(f"lowest against image by image: {figures['times_image_by_image'][worst]:.1f} times ({worst})")


if __name__ == "__main__":
    run(main)
