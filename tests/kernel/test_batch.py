"""Padding, weights of batches, and the order of examples."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmlab.batch import Batch, Chunk, Order, pad
from llmlab.losses import IGNORE


def test_pad():
    rows = [[1, 2, 3], [], [4]]
    assert pad(rows).tolist() == [[1, 2, 3], [0, 0, 0], [4, 0, 0]]
    assert pad(rows, IGNORE, left=True).tolist() == [[1, 2, 3], [IGNORE] * 3, [IGNORE, IGNORE, 4]]
    assert pad([torch.tensor([5]), [6, 7]]).tolist() == [[5, 0], [6, 7]]
    assert pad([]).shape == (0, 0)
    assert pad(rows).dtype == torch.int64


@given(st.lists(st.lists(st.integers(1, 9), max_size=6), min_size=1, max_size=6), st.booleans())
def test_padding_keeps_every_row(rows, left):
    out = pad(rows, left=left)
    assert out.shape == (len(rows), max(map(len, rows)))
    assert [line[line != 0].tolist() for line in out] == rows


def test_the_weight_of_a_batch():
    labels = torch.tensor([[1, IGNORE], [IGNORE, 2]])
    assert Batch({"tokens": torch.zeros(3, 2)}, {"labels": labels}).weight == 2
    assert Batch({"tokens": torch.zeros(3, 2), "beta": 0.1}, {"rewards": torch.zeros(3)}).weight == 3
    assert Batch({"beta": 0.1}).weight == 1
    counted = Batch({"tokens": torch.zeros(3, 2)}, {"labels": labels}, count=7)
    assert counted.weight == counted.to("cpu").weight == 7
    moved = Batch({"tokens": torch.zeros(3, 2), "beta": 0.1}, {"labels": labels}).to("meta")
    assert moved.inputs["tokens"].device.type == moved["labels"].device.type == "meta"
    assert moved.inputs["beta"] == 0.1


def test_a_row_s_random_numbers_are_its_own():
    draws = {}
    for ids in ([3, 4, 5], [5, 9], [3]):
        for i, g in zip(ids, Chunk([{}] * len(ids), ids, 2, 7).generators("mask"), strict=True):
            draws.setdefault(i, []).append(torch.rand(3, generator=g).tolist())
    assert draws[5][0] == draws[5][1] and draws[3][0] == draws[3][1] and draws[3] != draws[4]
    others = [Chunk([{}], [3], 3, 7), Chunk([{}], [3], 2, 8)]
    assert all(torch.rand(3, generator=c.generators("mask")[0]).tolist() not in draws[3] for c in others)
    assert torch.rand(3, generator=Chunk([{}], [3], 2, 7).generators()[0]).tolist() not in draws[3]


class Rows(list):
    @property
    def lengths(self):
        return [len(row) for row in self]


def rows(count=130):
    return Rows([0] * (1 + (i * 37) % 50) for i in range(count))


@pytest.mark.parametrize("kind", [list, Rows], ids=["plain", "bucketed"])
def test_every_epoch_is_a_permutation(kind):
    order = Order(kind(rows()), 8, seed=0)
    epochs = [order.epoch(e) for e in range(4)]
    for chunks in epochs:
        ids = [i for chunk in chunks for i in chunk]
        assert len(ids) == len(set(ids)) and set(ids) <= set(range(130))
        assert [len(c) for c in chunks[: 130 // 8]] == [8] * 16
    assert len({str(e) for e in epochs}) == 4
    assert Order(kind(rows()), 8, seed=0).epoch(2) == epochs[2]  # whenever it is asked
    assert Order(kind(rows()), 8, seed=1).epoch(2) != epochs[2]
    assert len(order) in (len(epochs[0]), 16)


@pytest.mark.parametrize("kind", [list, Rows], ids=["plain", "bucketed"])
@pytest.mark.parametrize("count", [20, 130])
def test_over_the_epochs_every_example_comes(kind, count):
    order = Order(kind(rows(count)), 8, seed=0)
    assert {i for e in range(20) for chunk in order.epoch(e) for i in chunk} == set(range(count))


def test_like_lengths_come_together():
    def padding(data, order):
        chunks = [[len(data[i]) for i in chunk] for chunk in order.epoch(0)]
        return sum(max(c) * len(c) - sum(c) for c in chunks)

    data = rows(1024)
    assert padding(data, Order(data, 16, 0)) < 0.35 * padding(data, Order(list(data), 16, 0))
    first = [max(len(data[i]) for i in chunk) for chunk in Order(data, 16, 0).epoch(0)]
    assert first != sorted(first)  # batches come in no order of length


def test_few_rows():
    assert Order([0, 1, 2], 16, 0).size == 3
    assert [sorted(c) for c in Order([0, 1, 2], 16, 0).epoch(0)] == [[0, 1, 2]]
