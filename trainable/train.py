"""Train one network by itself, without Ray, and save it.

python trainable/train.py --arch resnet18 --epochs 0.2
python trainable/train.py --set convnet.width=32 --set lr=0.002 --set augment.rotation=15
"""

import json
import sys
import time
from argparse import Namespace
from pathlib import Path

from tqdm import tqdm

from trainable import files, saved, scores
from trainable.archs import ARCHS
from trainable.config import TrialConfig
from trainable.datasets import DATASETS, default_dataset, load
from trainable.errors import BadInput, Parser, positive, run
from trainable.fit import evaluate, fit, predict

ROOT = Path(__file__).resolve().parents[1]


def main():
    args = parse(sys.argv[1:])
    config = configure(args)
    data = load(args.dataset)
    steps = fit(config, data)
    try:
        args.out.mkdir(parents=True, exist_ok=True)  # complain before the training, not after it
    except OSError as wrong:
        raise BadInput(f"--out {args.out}: {wrong.strerror}; choose a folder that can be written") from wrong
    print(f"{config.arch} on {data.name}: {len(data.train):,} images to train, {len(data.val):,} to choose (val).")

    began = time.monotonic()
    with tqdm(
        total=config.epochs, unit="epoch", bar_format="{l_bar}{bar}| {n:.2f}/{total:g} epochs [{elapsed}<{remaining}{postfix}]"
    ) as bar:
        for metrics, state in steps:
            bar.update(round(metrics["budget"], 3) - bar.n)
            if state.step % 10 == 0:
                bar.set_postfix_str(f"loss {metrics['loss']:.3f}", refresh=False)
            if state.step == state.total_steps or state.step % state.steps_per_epoch == 0:
                report, _ = evaluate(state, data.val)
                bar.write(
                    f"epoch {report['budget']:6.2f}  val error {report['val_error']:.2%}  val loss {report['val_loss']:.4f}"
                )

    report |= {"seconds": round(time.monotonic() - began, 1)}
    if len(data.test):
        report["test_error"] = scores.errors(predict(state.best_network, data.test, state.plan), data.test.labels) / len(
            data.test
        )
        print(f"test error {report['test_error']:.2%} of {len(data.test):,}, never used to choose")
    for name, content in saved.pack(config, data, state.best_network, report).items():
        files.write(args.out / name, content)
    print(f"{report['seconds']:.0f} s; saved in {args.out}: {saved.WEIGHTS}, {saved.CONFIG}")


def parse(arguments: list[str]) -> Namespace:
    p = Parser(prog="train.py", description=__doc__.split("\n")[0])
    p.add_argument("--arch", default="convnet", help=f"one of: {', '.join(ARCHS)}")
    p.add_argument("--dataset", help=f"{', '.join(DATASETS)} (default: the competition's if it is in data/, else the sample)")
    p.add_argument("--epochs", type=positive(float, 1e5), default=8.0, help="the whole training; fractions are allowed")
    p.add_argument(
        "--seed", type=positive(int, 2**31, or_zero=True), default=0, help="of the weights, the order and the augmentation"
    )
    p.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any other field of a TrialConfig; repeatable")
    p.add_argument("--out", help="the folder to save in (default: networks/<arch>-<seed>)")
    args = p.parse_args(arguments)
    args.dataset = args.dataset or default_dataset()[0]
    args.out = Path(args.out or ROOT / "networks" / f"{args.arch}-{args.seed}").resolve()
    return args


def configure(args: Namespace) -> TrialConfig:
    """Raises BadInput for an unknown key or a value outside its range."""
    flat = TrialConfig.from_flat({"arch": args.arch, "epochs": args.epochs, "seed": args.seed}).flat()
    for pair in args.set:
        key, equals, text = pair.partition("=")
        if not equals:
            raise BadInput(f"--set {pair}: write KEY=VALUE, as in --set lr=0.002")
        try:
            flat[key] = json.loads(text)
        except json.JSONDecodeError:
            flat[key] = text
    return TrialConfig.from_flat(flat)


if __name__ == "__main__":
    run(main)
