"""Runs that are written down: a mapping, or a .toml, .yaml or .json file with the same in it. Nothing is evaluated.

    {"id": "wf1", "config": {...}, "sink": {"path": "out", "format": "csv"},
     "phases": [{"name": "signals", "fn": "package.module:function", "depends_on": [...], ...}]}

What a phase has beside `fn` is as `zmreg.Phase` has it. Each slip is told with the path to it: `phases[1].depend_on`.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from zmreg.flows.runs.phases import Phase, RunOptions
from zmreg.model.errors import PhaseError

# Of `zmreg.run` what a file can say; the rest is objects.
_RUN_KEYS: Final = ("id", "resume", "folder", "keep", "config", "concurrency", "timeout", "sink", "phases")
_PHASE_KEYS: Final = tuple(Phase.__match_args__)
_TYPES: Final[dict[str, tuple[tuple[type, ...], str]]] = {
    "name": ((str,), "a text"),
    "depends_on": ((list, tuple), "a list of names of phases"),
    "inherit_from": ((str,), "the name of a phase"),
    "config": ((Mapping,), "a mapping"),
    "when": ((Mapping,), 'bounds, as {"signals.sharpe": {">": 1}}'),
    "required": ((bool,), "true or false"),
    "storage": ((str,), "a text"),
    "cache": ((bool,), "true or false"),
    "timeout": ((int, float), "seconds"),
    "retries": ((int,), "a number"),
    "backoff": ((int, float), "seconds"),
    "on_error": ((str,), "a text"),
    "concurrency": ((int,), "a number"),
    "locs": ((list, tuple), "a list of names"),
    "num_cpus": ((int, float), "a number"),
    "num_gpus": ((int, float), "a number"),
    "resources": ((Mapping,), "a mapping"),
    "options": ((Mapping,), "a mapping"),
    "record": ((bool,), "true or false"),
    "id": ((str,), "a text"),
    "resume": ((bool,), "true or false"),
    "folder": ((str,), "a path"),
    "keep": ((bool,), "true or false"),
    "sink": ((Mapping,), "a mapping with `path`"),
    "phases": ((list, tuple), "a list of phases"),
}


def declared(given: Mapping[str, Any] | str | os.PathLike[str], options: RunOptions) -> tuple[list[Phase], RunOptions]:
    """(phases, options): what is given by call comes before what is written. Raises PhaseError; OSError for a file that
    cannot be read; ImportError for YAML without PyYAML."""
    written = given if isinstance(given, Mapping) else _read(Path(given))
    _check(written, _RUN_KEYS, "", needs=("phases",))
    functions = options.get("functions") or {}
    phases = [_phase(each, f"phases[{index}]", functions) for index, each in enumerate(written["phases"])]
    merged: RunOptions = {**_run_options(written), **options}
    if written.get("config") and options.get("config"):
        merged["config"] = {**written["config"], **(options["config"] or {})}
    if "sink" in written and "sink" not in options:
        merged["sink"] = _sink(written["sink"])
    return phases, merged


def _run_options(written: Mapping[str, Any]) -> RunOptions:
    found: Any = {name: value for name, value in written.items() if name not in ("phases", "sink")}
    options: RunOptions = found
    return options


def _phase(given: object, where: str, functions: Mapping[str, Callable[..., Any]]) -> Phase:
    if not isinstance(given, Mapping):
        raise PhaseError(f"{where}: a phase is a mapping with `name` and `fn`, and not {given!r:.60}")
    _check(given, _PHASE_KEYS, f"{where}.", needs=("name", "fn"))
    if "retry_on" in given:
        raise PhaseError(f"{where}.retry_on: classes cannot be written down; it is for zmreg.Phase")
    return Phase(**{**given, "fn": _function(given["fn"], f"{where}.fn", functions)})


def _function(named: object, where: str, functions: Mapping[str, Callable[..., Any]]) -> Any:
    if not isinstance(named, str):
        return named  # a mapping in Python may have the function itself
    if named in functions:
        return functions[named]
    module, _, path = named.partition(":")
    if not path:
        raise PhaseError(f"{where}: {named!r} is none of the functions given ({', '.join(functions) or 'none'}), and "
                         "not `package.module:function`")  # fmt: skip
    try:
        found: Any = import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        raise PhaseError(f"{where}: {named!r} cannot be had: {error}") from error
    return found


def _sink(given: Mapping[str, Any]) -> Any:
    from zmreg.flows.results.sinks import Sink

    if "path" not in given:
        raise PhaseError("sink.path: missing: where results are written")
    try:
        return Sink(**given)
    except (TypeError, ValueError) as error:
        raise PhaseError(f"sink: {error}") from error


def _check(given: Mapping[str, Any], known: Collection[str], where: str, needs: Collection[str]) -> None:
    for name, value in given.items():
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise PhaseError(f"{where}{name}: there is no such key; {hint}")
        kinds, said = _TYPES.get(name, ((object,), ""))
        is_flag = isinstance(value, bool) and bool not in kinds and object not in kinds
        if value is not None and (is_flag or not isinstance(value, kinds)) and not (name == "when" and callable(value)):
            raise PhaseError(f"{where}{name}: {value!r:.60} is not {said}")
    for name in needs:
        if name not in given:
            raise PhaseError(f"{where}{name}: missing")


def _read(path: Path) -> Mapping[str, Any]:
    text = path.read_text(encoding="utf-8")
    found = _parsed(path, text)
    if not isinstance(found, Mapping):
        raise PhaseError(f"{path}: a run is a mapping with `phases`, and not a {type(found).__name__}")
    return found


def _parsed(path: Path, text: str) -> Any:
    try:
        if path.suffix == ".toml":
            import tomllib

            return tomllib.loads(text)
        if path.suffix == ".json":
            import json

            return json.loads(text)
    except ValueError as error:
        raise PhaseError(f"{path}: {error}") from error
    if path.suffix not in (".yaml", ".yml"):
        raise PhaseError(f"{path}: a declaration is a .toml, .yaml or .json file")
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError:
        raise ImportError(f"{path}: reading YAML needs PyYAML: pip install pyyaml, or write it as .toml") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PhaseError(f"{path}: {error}") from error
