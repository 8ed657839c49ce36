"""The moving average of the weights."""

import torch
from torch import nn

from atrous.training.ema import update_ema


def test_the_average_moves_by_its_decay_and_copies_counters() -> None:
    net, average = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    nn.init.constant_(net.weight, 2.0)
    nn.init.constant_(average.weight, 1.0)
    net.running_mean.fill_(4.0)  # type: ignore[union-attr, operator]
    net.num_batches_tracked.fill_(7)  # type: ignore[union-attr, operator]
    update_ema(average, net, 0.9, step=10**6)
    torch.testing.assert_close(average.weight.data, torch.full((3,), 1.1))
    torch.testing.assert_close(average.running_mean, torch.full((3,), 0.4))
    assert average.num_batches_tracked == 7
    update_ema(average, net, 0.9, step=0)  # early on the average follows quickly: (1 + 0) / (10 + 0) of it stays
    torch.testing.assert_close(average.weight.data, torch.full((3,), 0.1 * 1.1 + 0.9 * 2.0))


def test_the_average_of_equal_weights_is_bit_identical() -> None:
    net, average = nn.Linear(50, 50), nn.Linear(50, 50)
    average.load_state_dict(net.state_dict())
    for step in range(5):
        update_ema(average, net, 0.998, step)
    assert torch.equal(average.weight, net.weight)
