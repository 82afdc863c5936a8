"""The process's settings change no result, and threads that were let go come back."""

from __future__ import annotations

import torch

from llmlab.speed import hand_over_cores, tune_process


def test_cores_that_were_handed_over_come_back_and_results_stay():
    x = torch.randn(300, 300, generator=torch.Generator().manual_seed(0))
    before, threads = x @ x, torch.get_num_threads()
    for _ in range(3):
        hand_over_cores()
        assert torch.equal(x @ x, before) and torch.get_num_threads() == threads


def test_tuning_can_be_left_out(monkeypatch):
    tune_process.cache_clear()
    monkeypatch.setenv("LLMLAB_TUNE", "0")
    assert not tune_process()
    tune_process.cache_clear()
