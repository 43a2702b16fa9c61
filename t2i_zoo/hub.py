"""Generators on the Hugging Face hub, by addresses such as ``hf://user/name@revision``.

A repository of ours holds ``model.safetensors`` and ``config.json``, which has the hash of the weights. No other file
is ever downloaded, so nothing that could run code is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from t2i_zoo.errors import T2IError
from t2i_zoo.files import sha256
from t2i_zoo.version import __version__

WEIGHTS, CONFIG, CARD, GRID = "model.safetensors", "config.json", "README.md", "samples.png"
LIBRARY = "t2i-zoo"
_ADDRESS = re.compile(r"hf:/{1,2}([\w.-]+/[\w.-]+)(?:@(.+))?")  # Path makes one slash of two
_PICKLES = (".ckpt", ".bin", ".pt", ".pth", ".pkl")
_LOGIN = "log in with hf auth login, or set HF_TOKEN to a token that may"


def is_address(path: str | Path) -> bool:
    """Whether this names a repository of the hub and no file."""
    return str(path).startswith("hf:/")


def fetch(address: str | Path, local_files_only: bool = False) -> Path:
    """The weights of a repository on this machine, downloaded unless the hub's cache has them.

    Args:
        address: ``hf://user/name``, or with a branch, tag or commit ``hf://user/name@revision``.
        local_files_only: read the cache alone, as ``HF_HUB_OFFLINE=1`` does.

    Returns:
        Path of ``model.safetensors``, beside which is ``config.json``.

    Raises:
        T2IError: for a repository, revision or file that is missing or may not be read, without network, and for
            weights that are not those of ``config.json``.
    """
    from huggingface_hub import hf_hub_download

    match = _ADDRESS.fullmatch(str(address))
    if match is None:
        raise T2IError(f"found {address}, expected hf://user/name or hf://user/name@revision")
    repository, revision = match.groups()
    options: dict[str, Any] = {"local_files_only": local_files_only, "library_name": LIBRARY}
    with _in_words(repository, revision, "read it", local_files_only):
        config = Path(hf_hub_download(repository, CONFIG, revision=revision, **options))
        if read_config(config) is None:
            raise T2IError(_not_ours(repository, revision))
        # the commit of the first file: a branch may move between two requests
        path = Path(hf_hub_download(repository, WEIGHTS, revision=config.parent.name, **options))
    try:
        return check(path)
    except T2IError:
        path.resolve().unlink(missing_ok=True)  # so that the next call downloads it again
        path.unlink(missing_ok=True)
        raise


def read_config(path: Path) -> dict[str, Any] | None:
    """A ``config.json`` that ``t2i-zoo push`` wrote; None for those of other libraries."""
    try:
        about = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    ours = isinstance(about, dict) and about.get("library_name") == LIBRARY and isinstance(about.get("sha256"), str)
    return about if ours else None


def check(weights: Path) -> Path:
    """The path of weights whose hash is that of the ``config.json`` beside them.

    Raises:
        T2IError: where it is another, or ``config.json`` is not ours.
    """
    about = read_config(weights.parent / CONFIG)
    if about is None:
        raise T2IError(f"found no {CONFIG} of t2i-zoo push beside {weights}: push it again")
    if (found := sha256(weights)) != about["sha256"]:
        raise T2IError(
            f"{weights} has the SHA-256 {found[:16]}..., expected {about['sha256'][:16]}... as {CONFIG} says: it is "
            "damaged or was replaced, so repeat the command, or ask its owner to push it again"
        )
    return weights


def upload(folder: Path, repository: str, private: bool, revision: str | None) -> str:
    """Make the repository, and the branch ``revision``, where they are missing, and commit our files of ``folder``.

    Returns:
        Address of the commit's page.

    Raises:
        T2IError: where the hub refuses it or cannot be reached.
    """
    from huggingface_hub import HfApi

    api = HfApi(library_name=LIBRARY, library_version=__version__)
    with _in_words(repository, None, "write to it"):
        api.create_repo(repository, private=private or None, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        done = api.upload_folder(
            folder_path=folder,
            repo_id=repository,
            revision=revision,
            allow_patterns=[WEIGHTS, CONFIG, CARD, GRID],
            commit_message=f"Upload with t2i-zoo {__version__}",
        )
    return str(done.commit_url)


def _not_ours(repository: str, revision: str | None) -> str:
    """Why a repository cannot be used; asks the hub for the names of its files."""
    from huggingface_hub import HfApi, constants

    files = [] if constants.HF_HUB_OFFLINE else HfApi().list_repo_files(repository, revision=revision)
    pickles = [name for name in files if name.endswith(_PICKLES)]
    if pickles and not any(name.endswith(".safetensors") for name in files):
        return (
            f"hf://{repository} holds {pickles[0]} and no .safetensors file: pickles can run code and are not read, so "
            "ask its owner for what t2i-zoo push writes"
        )
    return f"hf://{repository} holds no {WEIGHTS} with a {CONFIG} of t2i-zoo push: give another repository"


@contextmanager
def _in_words(repository: str, revision: str | None, act: str, local_files_only: bool = False) -> Iterator[None]:
    """Errors of ``huggingface_hub`` as one sentence; ``act`` is what a token must be allowed to do."""
    from huggingface_hub import constants, errors

    address, hub = f"hf://{repository}" + (f"@{revision}" if revision else ""), constants.ENDPOINT
    try:
        yield
    except T2IError:
        raise
    except errors.GatedRepoError:
        raise T2IError(f"{address} is gated: accept its terms on {hub}/{repository}, and {_LOGIN} {act}") from None
    except errors.RevisionNotFoundError:
        raise T2IError(f"found no revision {revision!r} of hf://{repository}: name a branch, tag or commit") from None
    except errors.RepositoryNotFoundError:
        raise T2IError(
            f"found no repository {repository} at {hub} that may be used: correct the name, or if it is private "
            f"{_LOGIN} {act}"
        ) from None
    except errors.LocalEntryNotFoundError as error:
        if local_files_only or constants.HF_HUB_OFFLINE:
            which = "local_files_only" if local_files_only else "HF_HUB_OFFLINE"
            raise T2IError(
                f"{address} is not in the cache of this machine, and {which} forbids to download it: load it once "
                "without"
            ) from None
        raise T2IError(_unreachable(address, hub, error.__cause__ or error)) from error
    except errors.EntryNotFoundError:
        raise T2IError(_not_ours(repository, revision)) from None
    except errors.HFValidationError:
        raise T2IError(f"found the repository {repository!r}, expected user/name") from None
    except Exception as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status in (401, 403):
            raise T2IError(f"{hub} refused access to {address} ({status}): {_LOGIN} {act}") from error
        foreign = type(cause).__module__.partition(".")[0] in ("httpx", "httpx2", "requests", "huggingface_hub")
        if foreign or (isinstance(cause, OSError) and cause.errno is None):
            raise T2IError(_unreachable(address, hub, cause)) from error
        raise


def _unreachable(address: str, hub: str, error: BaseException) -> str:
    if type(error).__name__ == "OfflineModeIsEnabled":
        return f"HF_HUB_OFFLINE forbids to reach {hub} for {address}: unset it"
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return f"cannot reach {address} at {hub} ({reason}): check the network and repeat the command"
