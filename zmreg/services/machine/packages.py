"""Directories and modules as zip files, the same bytes for the same content, and back."""

from __future__ import annotations

import fnmatch
import os
import shutil
import tempfile
import zipfile
from _blake2 import blake2b
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

# What a package may have before it is packed. Data belongs into objects: they are sent to those who need them.
MAX_BYTES = 100 * 1000 * 1000
# Never code, often large.
LEFT_OUT = ("__pycache__", "*.pyc", ".git", ".hg", ".svn", ".venv", "venv", "node_modules", ".*_cache")
_LARGEST_NAMED = 3
# The oldest date a zip file can have: the bytes shall not depend on the clock.
_DATE = (1980, 1, 1, 0, 0, 0)


def pack(source: Path, excludes: Sequence[str], inside: str = "") -> tuple[str, bytes]:
    """(digest of names and contents in hex, zip file) of a directory, or of one file.

    `inside`: the directory that everything is put into; `excludes`: patterns (`data`, `*.csv`, `docs/*`) of names or of
    paths below `source`. Raises ValueError over MAX_BYTES, naming the largest files, OSError for what cannot be read.
    """
    files = _files(source, (*LEFT_OUT, *excludes))
    sizes = {path: path.stat().st_size for path in files.values()}
    if sum(sizes.values()) > MAX_BYTES:
        largest = sorted(sizes, key=lambda path: -sizes[path])[:_LARGEST_NAMED]
        named = ", ".join(f"{path} ({sizes[path] / 1e6:.0f} MB)" for path in largest)
        raise ValueError(
            f"{source} has {sum(sizes.values()) / 1e6:.0f} MB, a package of runtime_env may have {MAX_BYTES / 1e6:.0f} "
            f"MB; the largest files: {named}. Leave them out with excludes=[...], and send data with zmreg.put()"
        )
    digest, packed = blake2b(digest_size=16), BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, path in sorted(files.items()):
            content = path.read_bytes()
            mode = path.stat().st_mode & 0o777
            entry = zipfile.ZipInfo(f"{inside}/{name}" if inside else name, _DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = mode << 16
            archive.writestr(entry, content)
            for part in (entry.filename.encode(errors="surrogateescape"), mode.to_bytes(2, "big"), content):
                digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest(), packed.getvalue()


def _files(source: Path, excludes: Sequence[str]) -> dict[str, Path]:
    """{path below `source`: file} of what is to be packed."""
    if source.is_file():
        return {source.name: source}
    found: dict[str, Path] = {}
    for folder, folders, names in os.walk(source):
        here = Path(folder).relative_to(source)
        folders[:] = [name for name in folders if not _excluded(here / name, excludes)]
        for name in names:
            path = here / name
            if not _excluded(path, excludes) and (source / path).is_file():
                found[path.as_posix()] = source / path
    return found


def _excluded(path: Path, excludes: Sequence[str]) -> bool:
    whole = path.as_posix()
    return any(fnmatch.fnmatch(path.name, each) or fnmatch.fnmatch(whole, each.rstrip("/")) for each in excludes)


def unpack(data: bytes, place: Path) -> None:
    """Unpack a zip file so that `place` is there whole or not at all; harmless when another process is faster.

    Raises OSError, or ValueError for bytes that are no zip file.
    """
    place.parent.mkdir(mode=0o700, exist_ok=True)
    making = Path(tempfile.mkdtemp(dir=place.parent, prefix="."))
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            for entry in archive.infolist():
                written = archive.extract(entry, making)
                Path(written).chmod((entry.external_attr >> 16) & 0o777 | 0o600)
        making.rename(place)
    except zipfile.BadZipFile as error:
        raise ValueError(f"a package is no zip file: {error}") from error
    except OSError:
        if not place.is_dir():
            raise
    finally:
        shutil.rmtree(making, ignore_errors=True)
