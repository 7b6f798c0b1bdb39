"""The loop that engine.py measures ours against: torchvision's references/classification/train.py, on our images."""

import torch
from common import STRENGTHS, torchvision_transform
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from trainable.archs import build_network
from trainable.config import TrialConfig

BATCH = 128


def recipe(arch: str, **fields) -> TrialConfig:
    return TrialConfig(
        arch=arch, batch_size=BATCH, augment=STRENGTHS, optimizer="adamw", lr_schedule="onecycle", average=0.998, **fields
    )


class Pictures(torch.utils.data.Dataset):
    def __init__(self, split, transform):
        self.images, self.labels, self.transform = torch.from_numpy(split.images), split.labels, transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.transform(self.images[i]), self.labels[i]


def reference(config: TrialConfig, data, workers: int):
    """The network after each step. It normalises by itself, so the transforms need not."""
    torch.manual_seed(config.seed)
    network = build_network(config, data)
    pictures = Pictures(data.train, torchvision_transform(config.augment, data.in_shape[-1]))
    several = {"num_workers": workers, "persistent_workers": True, "multiprocessing_context": "fork"} if workers else {}
    loader = DataLoader(pictures, config.batch_size, shuffle=True, drop_last=True, **several)
    groups = [
        {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    steps = round(config.epochs * len(loader))
    optimizer = torch.optim.AdamW(groups, config.lr, betas=(config.momentum, 0.999))
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.lr, total_steps=steps, pct_start=config.warmup, cycle_momentum=False
    )
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(config.average), use_buffers=True)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
    network.train()
    while True:
        for images, labels in loader:
            loss = criterion(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            average.update_parameters(network)
            steps -= 1
            yield network
            if not steps:
                return
            scheduler.step()
