import pytest
import torch
from torch import nn

from trainable.optim import LR_SCHEDULES, OPTIMIZERS, Average, make_optimizer


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimisers_learn(name):
    """At the low end and in the middle of its range of learning rates, a small regression gets better."""
    low, high = OPTIMIZERS[name].low, OPTIMIZERS[name].high
    for lr in (low, (low * high) ** 0.5):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
        x = torch.rand(64, 4)
        y = x.sum(dim=1, keepdim=True)
        optimizer = make_optimizer(name, network, lr, momentum=0.9, weight_decay=1e-4)
        losses = []
        for _ in range(60):
            loss = (network(x) - y).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < 0.9 * losses[0], f"{name} at {lr}"


def test_biases_and_normalisation_do_not_decay():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    groups = make_optimizer("sgd", network, 0.1, 0.9, 0.5).param_groups
    decay = {p.shape: group["weight_decay"] for group in groups for p in group["params"]}
    assert decay == {torch.Size([2, 1, 3, 3]): 0.5, torch.Size([2]): 0.0}


@pytest.mark.parametrize("name", LR_SCHEDULES)
def test_schedules_stay_between_0_and_1_and_reach_1(name):
    for warmup in (0.0, 0.2, 1.0):
        factors = [LR_SCHEDULES[name](i / 200, warmup) for i in range(201)]
        assert all(0 <= f <= 1 for f in factors)
        assert max(factors) > 0.98


def test_schedules_as_published():
    at = {name: [round(schedule(t, 0.2), 4) for t in (0.1, 0.2, 0.6, 1.0)] for name, schedule in LR_SCHEDULES.items()}
    assert at["constant"] == [0.5, 1, 1, 1]
    steps = [LR_SCHEDULES["step"](t, 0.2) for t in (0.1, 0.59, 0.61, 0.79, 0.81)]
    assert steps == pytest.approx([0.5, 1, 0.1, 0.1, 0.01])
    assert at["exponential"] == [0.5, 1, 0.1, 0.01]
    assert at["trapezoid"] == [0.5, 1, 1, 0]
    assert at["cosine"] == [0.5, 1, 0.5, 0]
    assert at["linear"] == [0.5, 1, 0.5, 0]
    assert at["onecycle"] == [0.52, 1, 0.5, 0]


def test_onecycle_is_torchs():
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.0, total_steps=101, pct_start=0.3, cycle_momentum=False)
    # torch's peak lies at step pct_start * total_steps - 1, and its last step at total_steps - 1.
    peak = (0.3 * 101 - 1) / 100
    for i in range(101):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(LR_SCHEDULES["onecycle"](i / 100, peak), abs=1e-6)
        optimizer.step()
        if i < 100:
            theirs.step()


def test_muon_steps_kernels_as_torchs_does_and_the_rest_as_adamw():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 4, 2)).to(
        memory_format=torch.channels_last
    )
    assert not network[0].weight.is_contiguous()
    kernel = network[0].weight.detach().flatten(1).clone().requires_grad_()
    bias = network[0].bias.detach().clone().requires_grad_()
    alone = torch.optim.Muon([kernel], 0.01, momentum=0.9, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW([bias], 0.01, betas=(0.9, 0.999), weight_decay=0.0)
    optimizer = make_optimizer("muon", network, 0.01, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        network(torch.rand(4, 3, 4, 4)).square().sum().backward()
        kernel.grad, bias.grad = network[0].weight.grad.flatten(1).clone(), network[0].bias.grad.clone()
        for one in (optimizer, alone, adamw):
            one.step()
        # The order of the columns differs, and the products are in bf16.
        assert torch.allclose(network[0].weight.flatten(1), kernel, atol=2e-3)
        assert torch.allclose(network[0].bias, bias, atol=1e-6)
    moved = (network[0].weight.detach() - network[0].weight.detach().mean()).abs().max()
    assert moved > 0


def test_average_warms_up_and_covers_buffers():
    network = nn.BatchNorm1d(1)
    average = Average(network, decay=0.5)
    with torch.no_grad():
        network.running_mean.fill_(1.0)
        network.weight.fill_(3.0)
    network.num_batches_tracked.fill_(7)
    average.update()  # the decay of the first step is min(0.5, 2 / 11)
    assert average.network.running_mean.item() == pytest.approx(9 / 11)
    assert average.network.weight.item() == pytest.approx(1 * 2 / 11 + 3 * 9 / 11)
    assert average.network.num_batches_tracked.item() == 7
    for _ in range(30):
        average.update()
    before = average.network.weight.item()
    network.weight.data.fill_(5.0)
    average.update()
    assert average.network.weight.item() == pytest.approx((before + 5) / 2)
