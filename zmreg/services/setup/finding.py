"""Which cluster is meant by an address, by the environment and the files, or by nothing: found, or to be started.

A node of that cluster on this machine is taken by its session directory, without a key: who may enter the directory is
the user whose node it is. Without one, this process needs a node of its own that joins, and the cluster's key.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from zmreg.model.errors import AuthenticationError, ClusterError
from zmreg.model.record import Record
from zmreg.model.settings import Listening
from zmreg.services.setup import config, sessions
from zmreg.services.setup.addresses import host_for, probe, same_place, split_address
from zmreg.services.setup.sessions import Word

AUTO: Final = "auto"
LOCAL: Final = "local"


class JoinAt(Record):
    """There is no node of that cluster on this machine: one has to join at `address` with the key in `key_file`."""

    address: str
    key_file: str

    def listening(self, name: str = "") -> Listening:
        """How a node of ours joins there. Raises ClusterError when nobody listens there, or there is no way."""
        probe(self.address)
        return Listening(self.key_file, host=host_for(self.address), contact=self.address, name=name)


def find(
    address: str | None, key: str | os.PathLike[str] | None = None, settings: Mapping[str, Any] | None = None
) -> Word | JoinAt | None:
    """The cluster that is meant; None: there is none, or a new one is wanted.

    `settings` are those of `config.values()`, if they are known already. Raises ClusterError for "auto" without a
    cluster and for several to choose from, AuthenticationError for a key that is missing, unsafe or another cluster's,
    ValueError for what is no address, config.ConfigError.
    """
    settings = config.values() if settings is None else settings
    address = address or settings.get("address")
    key = key or settings.get("key")
    if address == LOCAL:
        return None
    if address is None or address == AUTO:
        word = only_one([word for word in sessions.running() if word.attachable], key)
        if word is None and address == AUTO:
            raise ClusterError(
                "no cluster of yours runs on this machine: start one (zmreg start --head), give its address as "
                "HOST:PORT, or leave the address out to have one of your own"
            )
        return word
    split_address(address)
    here = [word for word in sessions.running() if word.attachable]
    at_home = [word for word in here if same_place(word.address, address)]
    word = next(iter(at_home or [word for word in here if same_place(word.contact, address)]), None)
    if word is not None:
        if key:
            require_same_keys(Path(key), word)
        return word
    return JoinAt(address, str(key_file(key)))


def only_one(words: Sequence[Word], key: str | os.PathLike[str] | None = None) -> Word | None:
    """The best of some nodes of one cluster; None when there are none. ClusterError when they are of several."""
    if key and words:
        from zmreg.services.setup import keys  # late, as below: most have one cluster, and need no key to use it

        cluster = keys.load(Path(key)).cluster_id
        words = [word for word in words if word.cluster == cluster]
    clusters = {word.cluster or word.node: word for word in reversed(words)}
    if len(clusters) > 1:
        heads = ", ".join(sorted(word.address or f"one of pid {word.pid}" for word in clusters.values()))
        raise ClusterError(f"{len(clusters)} clusters of yours run on this machine; say which by its address: {heads}")
    return words[0] if words else None


def require_same_keys(path: Path, word: Word) -> None:
    """Raises AuthenticationError when the key in `path` is not that of the cluster of `word`."""
    from zmreg.services.setup import keys

    given, theirs = keys.load(path), keys.load(Path(word.key_file))
    if not given.keys.accepted & theirs.keys.accepted:
        raise AuthenticationError(
            f"{path} is the key of cluster {given.cluster_id}, and {word.address} is of {word.cluster}, whose key is "
            f"in {word.key_file}"
        )


def key_file(given: str | os.PathLike[str] | None) -> Path:
    """The file with the key to join with: the given one, or the only one there is. Raises AuthenticationError."""
    from zmreg.services.setup import keys

    if given:
        path = Path(given).expanduser()
        keys.load(path)
        return (path / keys.KEY_FILE if path.is_dir() else path).absolute()
    known = keys.known_clusters()
    where = keys.home() / "clusters"
    if not known:
        raise AuthenticationError(
            f"no cluster key under {where}: bring a copy of the head's (`zmreg key show` there says where it is) and "
            "say where it is with --key, key= or ZMREG_KEY"
        )
    if len(known) > 1:
        raise AuthenticationError(
            f"there are keys of {len(known)} clusters under {where}: {', '.join(known)}; say which file with --key, "
            "key= or ZMREG_KEY"
        )
    path = keys.cluster_directory(known[0]) / keys.KEY_FILE
    keys.load(path)
    return path
