"""Forward pass and loss are one module, so engines that wrap a module give what one process gives."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing as mp

from llmlab import ModelConfig, Run, Training
from llmlab.batch import Batch
from llmlab_plugins.clm import CLM

CONFIG = ModelConfig(vocab_size=330, context=32, layers=2, heads=2, width=16)
ROWS = [{"text": f"number {i} is {i * 7 % 13}"} for i in range(60)]


def make():
    torch.set_num_threads(1)
    return Run([CLM(window=8)], ROWS, config=CONFIG, training=Training(steps=1), device="cpu")


def batch(part=slice(None)):
    tokens = torch.randint(0, 300, (4, 9), generator=torch.Generator().manual_seed(0))[part]
    return Batch({"tokens": tokens[:, :-1]}, {"labels": tokens[:, 1:]})


def train(step, parameters, part):
    """Three plain gradient steps; the losses and the sum of all weights afterwards."""
    optimizer = torch.optim.SGD(parameters, lr=0.5)
    losses = []
    for _ in range(3):
        loss = step(batch(part))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def worker(rank, engine, file, results):
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    try:
        run = make()
        if engine == "DDP":
            step = torch.nn.parallel.DistributedDataParallel(run.step)
        else:
            from torch.distributed.fsdp import FullyShardedDataParallel

            step = FullyShardedDataParallel(run.step, use_orig_params=True, device_id=torch.device("cpu"))
        losses = torch.tensor(train(step, step.parameters(), slice(2 * rank, 2 * rank + 2)))
        dist.all_reduce(losses)
        if rank == 0:
            results.put((losses / 2).tolist())
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["DDP", "FSDP"])
def test_two_processes_equal_one(engine, tmp_path):
    run = make()
    expected = train(run.step, run.model.parameters(), slice(None))
    assert expected[2] < expected[0]
    results = mp.get_context("spawn").SimpleQueue()
    mp.spawn(worker, args=(engine, tmp_path / "store", results), nprocs=2)
    assert results.get() == pytest.approx(expected, rel=1e-5)
