"""Features of photographs, computed once for each network and data set and kept in the cache folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from t2i_zoo.errors import T2IError
from t2i_zoo.files import replacing
from t2i_zoo.metrics.networks import Network
from t2i_zoo.metrics.photographs import Photographs
from t2i_zoo.paths import cache_folder

_FORMAT = 1  # raise it with any change of how features are computed


def ranks() -> tuple[int, int]:
    """Rank of this process and the number of processes."""
    ready = dist.is_available() and dist.is_initialized()
    return (dist.get_rank(), dist.get_world_size()) if ready else (0, 1)


def photograph_features(
    photographs: Photographs, rows: Tensor, network: Network, device: torch.device, batch_size: int
) -> Tensor:
    """Features (N, D) of photographs, float32 on the CPU, the same in every process.

    Cached as ``<cache>/metrics/<hash>.npy`` under a hash of the store, the rows, the size and the network's weights.
    Several processes share the work.
    """
    words = " ".join((str(_FORMAT), photographs.key, network.fingerprint))
    key = hashlib.sha256(words.encode() + rows.numpy().tobytes()).hexdigest()[:24]
    path = cache_folder() / "metrics" / f"{key}.npy"
    cached = read_cached(path, len(rows))
    rank, world = ranks()
    if world > 1:  # all processes must agree, or some would wait for the others
        found = torch.tensor(int(cached is not None), device=device)
        dist.all_reduce(found, dist.ReduceOp.MIN)
        cached = cached if int(found) else None
    if cached is not None:
        return cached
    shared = world if len(rows) >= world else 1
    place = torch.arange(rank if shared > 1 else 0, len(rows), shared)
    batches = (rows[part] for part in torch.split(place, batch_size))
    features = torch.cat([network.look(photographs.images(batch).to(device))[0] for batch in batches])
    if shared > 1:
        features, place = (torch.cat(gather_all_tensors(x)) for x in (features, place.to(device)))
    features = features[torch.argsort(place)].cpu()
    if not torch.isfinite(features).all():
        raise T2IError(f"found features of photographs by {network.label} that are not finite: give another --network")
    if rank == 0:
        write_cached(path, features)
    return features


def read_cached(path: Path, count: int) -> Tensor | None:
    """A cached matrix of ``count`` rows, or None if it is missing or damaged."""
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return torch.from_numpy(found) if found.ndim == 2 and len(found) == count else None


def write_cached(path: Path, matrix: Tensor) -> None:
    """Cache a matrix.

    Raises:
        T2IError: if the cache folder cannot be written to.
    """
    try:
        with replacing(path) as beside:
            np.save(beside, matrix.numpy())
    except OSError as error:
        raise T2IError(
            f"cannot write {path} ({error.strerror}): set T2I_ZOO_CACHE to a folder you may write to"
        ) from error
