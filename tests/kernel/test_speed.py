"""The process's settings change no result, and threads that were let go come back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from llmlab.speed import hand_over_cores, tune_process


def test_cores_that_were_handed_over_come_back_and_results_stay():
    x = torch.randn(300, 300, generator=torch.Generator().manual_seed(0))
    before, threads = x @ x, torch.get_num_threads()
    for _ in range(3):
        hand_over_cores()
        assert torch.equal(x @ x, before) and torch.get_num_threads() == threads


def test_tuning_can_be_left_out(monkeypatch):
    monkeypatch.setenv("LLMLAB_TUNE", "0")
    assert not tune_process()


def test_every_thread_that_trains_treats_tiny_numbers_as_zero():
    def tiny() -> float:
        return float(torch.tensor([1e-39]) * 1)

    if not torch.set_flush_denormal(True):
        pytest.skip("this processor has no such setting")
    torch.set_flush_denormal(False)
    for _ in range(2):  # a second thread as well as the first
        with ThreadPoolExecutor(1) as thread:
            before = thread.submit(tiny).result()
            thread.submit(tune_process).result()
            assert before > 0 == thread.submit(tiny).result()
