"""Federated data sets: splits, and everything that is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from framp_private import FederatedDataset, Schema
from framp_private.data.base import stratified
from framp_private.errors import DataError
from framp_private.randomness import Streams
from tests.tiny import blobs


def test_splits_are_disjoint_cover_everything_and_keep_the_class_mix() -> None:
    x, y = blobs(200, 0)
    data = FederatedDataset.from_arrays({"a": (x, y)}).clients["a"]
    parts = [set(part.tolist()) for part in (data.train, data.validation, data.test)]
    assert sum(len(part) for part in parts) == 200 and set().union(*parts) == set(range(200))
    for part in (data.train, data.validation, data.test):
        shares = torch.bincount(data.y[part], minlength=3) / len(part)
        assert float((shares - torch.bincount(data.y) / 200).abs().max()) < 0.06


@pytest.mark.parametrize("count", [0, 1, 7, 20, 50])
def test_stratified_takes_exactly_so_many(count: int) -> None:
    labels = torch.tensor([0] * 3 + [1] * 20 + [2] * 27)
    chosen, rest = stratified(labels, count, Streams(0))
    assert len(chosen) == count
    assert sorted([*chosen.tolist(), *rest.tolist()]) == list(range(50))


def test_pictures_tables_and_unseen_clients_are_recognised() -> None:
    rng = np.random.default_rng(0)
    images = rng.random((30, 1, 8, 8))
    data = FederatedDataset.from_arrays({"a": (images, np.arange(30) % 2)}, unseen={"b": (images, np.arange(30) % 2)})
    assert data.schema == Schema("image", (1, 8, 8), 2) and list(data.unseen) == ["b"]
    assert FederatedDataset.from_arrays({"a": blobs(30, 0)}).schema.kind == "table"


X, Y = blobs(30, 0)
NAN = X.copy()
NAN[3, 2] = np.nan
BAD = {
    "no clients": ({}, "no clients"),
    "empty client": ({"a": (X, Y), "b": (X[:0], Y[:0])}, "'b' has 0 training"),
    "NaN": ({"a": (NAN, Y)}, "NaN or infinite"),
    "infinity": ({"a": (X * np.inf, Y)}, "NaN or infinite"),
    "absent class": ({"a": (X, np.where(Y == 1, 2, Y))}, r"class \[1\]"),
    "lengths": ({"a": (X, Y[:-1])}, "one label per record"),
    "label shape": ({"a": (X, Y[:, None])}, "one label per record"),
    "fractions": ({"a": (X, Y + 0.5)}, "whole numbers"),
    "negative": ({"a": (X, Y - 1)}, "must lie in 0"),
    "shapes differ": ({"a": (X, Y), "b": (X[:, :3], Y)}, "all must agree"),
    "rank": ({"a": (X[:, :, None], Y)}, "neither a table row"),
}


@pytest.mark.parametrize("name", ["../escape", "a/b", "", ".hidden", "x" * 101, "new\nline"])
def test_names_that_are_no_file_names_are_refused(name: str) -> None:
    with pytest.raises(DataError, match="file name"):
        FederatedDataset.from_arrays({name: (X, Y)})


def test_a_client_has_one_role() -> None:
    with pytest.raises(DataError, match="both training and unseen"):
        FederatedDataset.from_arrays({"a": (X, Y)}, unseen={"a": (X, Y)})


@pytest.mark.parametrize("name", BAD)
def test_records_that_cannot_be_used_are_refused(name: str) -> None:
    clients, reason = BAD[name]
    with pytest.raises(DataError, match=reason):
        FederatedDataset.from_arrays(clients)


def test_a_client_that_lacks_a_class_is_normal() -> None:
    FederatedDataset.from_arrays({"a": blobs(30, 0, (0, 1)), "b": blobs(30, 1, (2,))})


def test_a_class_of_the_schema_that_nobody_has_is_refused() -> None:
    with pytest.raises(DataError, match=r"class \[3\]"):
        FederatedDataset.from_arrays({"a": (X, Y)}, n_classes=4)
