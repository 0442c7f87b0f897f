"""`runtime_env=`: checking what users give, and packing it for the way."""

from __future__ import annotations

import os
from _blake2 import blake2b
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from zmreg.api.strategies import PlacementGroupSchedulingStrategy
from zmreg.model.specs import BUNDLE, ENV, GROUP, PROCESS, Shape, grouped
from zmreg.services.worker.breaking import POST_MORTEM, hold_s
from zmreg.services.worker.environments import Environment, Equipped, Membership, Package

if TYPE_CHECKING:
    from zmreg.services.seat.client import Client

KEYS = ("env_vars", "working_dir", "py_modules", "excludes")
_FOREIGN = frozenset({"pip", "conda", "uv", "container", "image_uri", "java_jars"})


def check_env(given: Any) -> dict[str, Any] | Environment | None:
    """What `runtime_env=` says, as a dictionary of known keys with paths made absolute. None for nothing.

    Raises ValueError for unknown keys and for paths that do not exist, TypeError for wrong types.
    """
    if given is None or isinstance(given, Environment):
        return given
    if not isinstance(given, Mapping):
        raise TypeError(f"runtime_env is a dictionary with {', '.join(KEYS)}, not {type(given).__name__}")
    for name in given:
        if name not in KEYS:
            why = "installs nothing: have it on every node" if name in _FOREIGN else "has no such key"
            raise ValueError(f"runtime_env={{{name!r}: ...}}: zmreg {why}. Supported: {', '.join(KEYS)}")
    checked: dict[str, Any] = {}
    if variables := given.get("env_vars"):
        checked["env_vars"] = _variables(variables)
    if given.get("working_dir") is not None:
        checked["working_dir"] = _path(given["working_dir"], "working_dir")
        if not checked["working_dir"].is_dir():
            raise ValueError(f"runtime_env working_dir={given['working_dir']!r} is a file; it has to be a directory")
    if modules := given.get("py_modules"):
        if isinstance(modules, (str, bytes, os.PathLike)):
            raise TypeError(f"runtime_env py_modules is a list of modules or paths, not the one {modules!r}")
        checked["py_modules"] = tuple(_module(each) for each in modules)
    if excludes := given.get("excludes"):
        if isinstance(excludes, str) or not all(isinstance(each, str) for each in excludes):
            raise TypeError(f"runtime_env excludes is a list of patterns, not {excludes!r}")
        checked["excludes"] = tuple(excludes)
    return checked or None


def of_program(given: Any) -> dict[str, Any] | Environment | None:
    """What `init(runtime_env=...)` says, over what a submitted job was given for all of its programs (JSON, in
    ZMREG_RUNTIME_ENV); checked. ValueError and TypeError as `check_env`."""
    jobs = os.environ.get("ZMREG_RUNTIME_ENV")
    if not jobs or isinstance(given, Environment):
        return check_env(given)
    import json  # late: for jobs

    both = {**json.loads(jobs), **check_mapping(given)}
    both["env_vars"] = {**json.loads(jobs).get("env_vars", {}), **check_mapping(given).get("env_vars", {})}
    return check_env(both)


def with_post_mortem(env: dict[str, Any] | Environment | None, wanted: bool | float | None) -> Any:
    """A program's `runtime_env`, checked, with what its workers have to know to hold calls that raise (None: what
    ZMREG_POST_MORTEM says). ValueError for what is neither yes, no nor a time."""
    text = os.environ.get(POST_MORTEM, "") if wanted is None else str(wanted)
    on = hold_s(text) > 0 or (wanted is not None and POST_MORTEM in os.environ)  # off is said where workers may have it
    if not on or isinstance(env, Environment):
        return env
    variables = {**(env or {}).get("env_vars", {}), POST_MORTEM: text}
    return {**(env or {}), "env_vars": variables}


def check_mapping(given: Any) -> Mapping[str, Any]:
    """A `runtime_env` as a mapping; an empty one for None. As `check_env` raises."""
    check_env(given)
    return given or {}


def _variables(given: Any) -> dict[str, str]:
    if not isinstance(given, Mapping):
        raise TypeError(f"runtime_env env_vars is a dictionary of strings, not {type(given).__name__}")
    for name, value in given.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"runtime_env env_vars={{{name!r}: {value!r}}}: names and values are strings")
        if not name or "=" in name or "\0" in name + value:
            raise ValueError(f"runtime_env env_vars={{{name!r}: ...}} is nothing that an environment can hold")
    return dict(given)


def _path(given: Any, what: str) -> Path:
    if not isinstance(given, (str, os.PathLike)):
        raise TypeError(f"runtime_env {what} has paths, not {given!r}")
    path = Path(os.fsdecode(given)).absolute()
    if not path.exists():
        raise ValueError(f"runtime_env {what}: there is no {path} on this machine")
    return path


def _module(given: Any) -> Path:
    """A module, by itself or by its path: a directory or one .py file."""
    if isinstance(given, ModuleType):
        file = getattr(given, "__file__", None)
        if file is None:
            raise ValueError(f"runtime_env py_modules: {given!r} has no file; give the path of what is to be sent")
        path = Path(file).absolute()
        return path.parent if path.name == "__init__.py" else path
    path = _path(given, "py_modules")
    if path.is_file() and path.suffix != ".py":
        raise ValueError(f"runtime_env py_modules: {path} is neither a directory nor a .py file")
    return path


def prepared(seat: Client, given: Any) -> Environment:
    """The environment of a call from here: ours, with what is `given` over it. Directories are packed and stored.

    `env_vars` are added to ours one by one; a `working_dir` or `py_modules` stands in the place of ours.
    Raises as `check_env`, ValueError for a package that is too large, OSError for one that cannot be read.
    """
    checked, base = check_env(given), inherited(seat.environment)
    if checked is None or isinstance(checked, Environment):
        return base if checked is None else joined(base, checked.variables, checked.working_dir, checked.modules)
    variables = tuple(checked.get("env_vars", {}).items())
    excludes = checked.get("excludes", ())
    folder = checked.get("working_dir")
    working_dir = None if folder is None else _package(seat, folder, excludes, "")
    modules = tuple(
        _package(seat, each, excludes, each.name if each.is_dir() else "") for each in checked.get("py_modules", ())
    )
    return joined(base, variables, working_dir, modules)


def joined(
    base: Environment,
    variables: tuple[tuple[str, str], ...] = (),
    working_dir: Package | None = None,
    modules: tuple[Package, ...] = (),
    group: Membership | None = None,
    process: str = "",
) -> Environment:
    """`base` with these over it, of its job, and in this placement group and this process, or in none."""
    both = tuple(sorted({**dict(base.variables), **dict(variables)}.items()))
    working_dir, modules = working_dir or base.working_dir, modules or base.modules
    digests = [working_dir.digest if working_dir else "", *(each.digest for each in modules)]
    member = (group.group_id, group.captures) if group is not None else None
    text = repr((both, digests, member, process)).encode(errors="surrogateescape")
    content = blake2b(text, digest_size=8).hexdigest() if both or any(digests) or member or process else ""
    return Environment(base.job + content, both, working_dir, modules, group, base.job, process)


def _package(seat: Client, source: Path, excludes: tuple[str, ...], inside: str) -> Package:
    from zmreg.api.refs import ObjectRef
    from zmreg.services.machine.packages import pack  # late: zipfile is for those who have packages

    digest, data = pack(source, excludes, inside)
    if seat.packages is None:
        seat.packages = {}
    known = seat.packages.get(digest)
    if known is None:
        known = seat.packages[digest] = seat.put(data)
    return Package(digest, str(source), ObjectRef(known))


def inherited(env: Environment) -> Environment:
    """What of it is for calls from there, too: neither the placement group nor the name of the process."""
    return joined(env) if env.group is not None or env.process else env


def settled(seat: Client, shape: Shape, options: Mapping[str, Any]) -> tuple[Shape, Environment]:
    """What a call or an actor asks of a node, and the environment it is in: that of the caller, with what its options
    say over it. Raises ValueError for what its placement group has no bundle for."""
    given, strategy = options.get("runtime_env"), options.get("scheduling_strategy")
    env = seat.environment
    if env.key or given is not None:
        env = prepared(seat, given)
    member, index = _membership(seat, strategy)
    if member is not None:
        shape, env = in_group(shape, member, index), joined(env, group=member)
    if process := options.get("process"):
        env = joined(env, group=member, process=process)
        shape = shape.with_terms({ENV: env.key, PROCESS: process})
    return shape, env


def _membership(seat: Client, strategy: object) -> tuple[Membership | None, int]:
    """The group that a call from here belongs to: the one it names, else the caller's if that captures."""
    if isinstance(strategy, PlacementGroupSchedulingStrategy):
        group = strategy.placement_group
        if group is None:
            return None, -1
        captures = strategy.placement_group_capture_child_tasks
        return Membership(group.group_id, group.bundles, group.name, captures), strategy.placement_group_bundle_index
    own = seat.environment.group
    return (own, -1) if own is not None and own.captures and strategy is None else (None, -1)


def in_group(shape: Shape, member: Membership, index: int) -> Shape:
    """The shape by the names of its group's resources. ValueError when no bundle, or not this one, could hold it."""
    if index >= len(member.bundles):
        raise ValueError(f"placement_group_bundle_index={index}: the group has bundles 0 to {len(member.bundles) - 1}")
    open_to = member.bundles if index < 0 else member.bundles[index : index + 1]
    if not any(shape.fits(dict(bundle)) for bundle in open_to):
        has = "; ".join(str(Shape.of_units(dict(bundle))) for bundle in open_to)
        raise ValueError(f"asked for [{shape}], but the placement group has only [{has}]: it would wait for ever")
    amounts = grouped((*shape.resources, (BUNDLE, 1)), member.group_id, index)
    return Shape(amounts, shape.locs, "", shape.terms).with_terms({GROUP: member.group_id.hex()})


def equipped(cls: type, env: Environment) -> Any:
    """What to send in place of a class, so that it is made in its environment; the class itself in the plain one."""
    return Equipped(cls, env) if env.key else cls


def portable(options: dict[str, Any]) -> dict[str, Any]:
    """Options as they are sent: the paths of their `runtime_env` mean nothing on another machine, packages do."""
    if options.get("runtime_env") is None:
        return options
    from zmreg.services.seat.seats import client

    return {**options, "runtime_env": prepared(client(), options["runtime_env"])}
