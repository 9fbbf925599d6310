"""Pictures: scikit-learn's digits (embedded), CIFAR-10 and CIFAR-100 (torchvision)."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from framp_private.data.base import Schema
from framp_private.data.partition import Pool
from framp_private.errors import DataError, MissingData


def digits() -> Pool:
    """1,797 grey pictures of 8x8 pixels in [0, 1], ten classes; part of scikit-learn, nothing to download."""
    data = load_digits()
    x = torch.from_numpy((data.images / 16).astype(np.float32))[:, None]
    return Pool("digits", Schema("image", (1, 8, 8), 10), x, torch.from_numpy(data.target.astype(np.int64)))


def cifar10(root: Path, download: bool = False) -> Pool:
    """60,000 colour pictures of 32x32 pixels in [-1, 1], ten classes, from `root/cifar-10-batches-py`."""
    return _cifar("cifar10", root, download, 10)


def cifar100(root: Path, download: bool = False) -> Pool:
    """60,000 colour pictures of 32x32 pixels in [-1, 1], one hundred classes, from `root/cifar-100-python`."""
    return _cifar("cifar100", root, download, 100)


def _cifar(name: str, root: Path, download: bool, n_classes: int) -> Pool:
    from torchvision.datasets import CIFAR10, CIFAR100  # takes two seconds to import

    reader = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    folder = root / reader.base_folder
    if not folder.is_dir() and not download:
        raise MissingData(
            f"dataset={name!r} is not in {folder}: pass --download, or unpack {reader.filename} "
            f"(https://www.cs.toronto.edu/~kriz/cifar.html) into {root}"
        )
    try:
        parts = [reader(str(root), train=train, download=download) for train in (True, False)]
    except (RuntimeError, OSError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise DataError(
            f"dataset={name!r} in {folder} cannot be read ({error}): remove the folder and fetch it again"
        ) from error
    pixels = np.concatenate([part.data for part in parts])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
    y = torch.tensor([label for part in parts for label in part.targets])
    return Pool(name, Schema("image", (3, 32, 32), n_classes), x.contiguous(), y)
