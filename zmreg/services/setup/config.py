"""What users set once: arguments first, then ZMREG_ variables, ./zmreg.toml, ~/.config/zmreg/config.toml, defaults.

The files are flat: one `name = value` a setting, named like the arguments of `init` and the options of `zmreg start`.
What nobody knows is an error, since a setting with a slip in its name would be ignored in silence otherwise; variables
are looked up by name, and others that begin with ZMREG_ mean nothing here. Secrets are never in them: `key` is a path.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from zmreg.model.settings import Listening, Settings

FILE: Final = "zmreg.toml"
# Beside the fields of Settings: where the cluster is, how a node that `zmreg start` makes is one of several, and what
# runs next to it (`load`).
_OF_START: Final = ("host", "port", "pub_port", "advertise", "state_dir", "name")
_PATHS: Final = ("key", "state_dir")
# For a service called zmreg Kubernetes sets ZMREG_PORT=tcp://10.0.0.1:7550 in every container.
_KUBERNETES: Final = "tcp://"


class ConfigError(ValueError):
    """A file or variable has a setting that does not exist, or one of a wrong type; the text says where."""


def known() -> dict[str, str]:
    """{setting: its type as written in Settings or Listening}."""
    found = {field.name: str(field.type) for field in fields(Settings)}
    found |= {field.name: str(field.type) for field in fields(Listening) if field.name in _OF_START}
    return {"address": "str", "key": "str", "load": "tuple[str, ...]", **found}


def user_file() -> Path:
    """The user's own file, for all of their directories."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "zmreg" / "config.toml"


def load() -> dict[str, tuple[Any, str]]:
    """{setting: (value, where it was set)}. Raises ConfigError."""
    found: dict[str, tuple[Any, str]] = {}
    for path in (user_file(), Path(FILE)):
        if path.is_file():
            found |= {name: (value, str(path)) for name, value in read(path).items()}
    for name, kind in known().items():
        variable = f"ZMREG_{name.upper()}"
        text = os.environ.get(variable)
        if text and not text.startswith(_KUBERNETES):
            found[name] = _of_text(kind, text, variable), variable
    return found


def values() -> dict[str, Any]:
    """{setting: value}. Raises ConfigError."""
    return {name: value for name, (value, _) in load().items()}


def read(path: Path) -> dict[str, Any]:
    """The settings in a file; paths are meant from its directory on. Raises ConfigError."""
    import tomllib  # late: most have no such file

    kinds = known()
    try:
        content = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    found = {}
    for name, value in content.items():
        if name not in kinds:
            import difflib  # late, as tomllib

            near = difflib.get_close_matches(name, kinds, 1)
            guess = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(sorted(kinds))}"
            raise ConfigError(f"{path} sets {name!r}, which does not exist; {guess}")
        found[name] = _checked(kinds[name], value, f"{path}: {name}")
        if name in _PATHS:
            found[name] = str(path.parent / Path(found[name]).expanduser())
    return found


def _checked(kind: str, value: object, where: str) -> Any:
    """The value as its setting has it. Integers do for floats, lists for tuples; nothing else is converted."""
    match kind, value:
        case ("str", str()) | ("bool", bool()):
            return value
        case "int", int() if not isinstance(value, bool):
            return value
        case "float", int() | float() if not isinstance(value, bool):
            return float(value)
        case "tuple[str, ...]", list() if all(isinstance(each, str) for each in value):
            return tuple(value)
        case "dict[str, float]", dict() if all(type(each) in (int, float) for each in value.values()):
            return {str(name): float(amount) for name, amount in value.items()}
        case "dict[str, str]", dict() if all(type(each) is str for each in value.values()):
            return {str(name): text for name, text in value.items()}
    raise ConfigError(f"{where} is {value!r}, and has to be {_WORDS[kind]}")


_WORDS: Final = {
    "str": "text",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "tuple[str, ...]": "a list of names",
    "dict[str, float]": "amounts by name",
    "dict[str, str]": "texts by name",
}


def _of_text(kind: str, text: str, where: str) -> object:
    """A variable's text as its setting has it."""
    try:
        match kind:
            case "int":
                return int(text)
            case "float":
                return float(text)
            case "bool":
                return {"1": True, "true": True, "0": False, "false": False}[text.lower()]
            case "tuple[str, ...]":
                return names(text)
            case "dict[str, float]":
                return amounts(text)
            case "dict[str, str]":
                return labels(text)
    except (ValueError, KeyError):
        raise ConfigError(f"{where}={text!r} has to be {_WORDS[kind]}") from None
    return text


def names(text: str) -> tuple[str, ...]:
    """`a,b` as ("a", "b")."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def amounts(text: str) -> dict[str, float]:
    """`{"licence": 2}` or `licence=2,disk=1` as amounts by name. ValueError when it is neither."""
    if text.lstrip().startswith("{"):
        read: Mapping[str, Any] = json.loads(text)
        return {str(name): float(amount) for name, amount in read.items()}
    found = {}
    for pair in names(text):
        name, equals, amount = pair.partition("=")
        if not name or not equals:
            raise ValueError(f"{pair!r} is not NAME=AMOUNT")
        found[name.strip()] = float(amount)
    return found


def labels(text: str) -> dict[str, str]:
    """`zone=a,disk=fast` as texts by name. ValueError for anything else."""
    found = {}
    for pair in names(text):
        name, equals, value = (part.strip() for part in pair.partition("="))
        if not (name and equals and value):
            raise ValueError(f"{pair!r} is not NAME=TEXT")
        found[name] = value
    return found


def size(text: str) -> int:
    """`2GiB`, `500M` or plain bytes. Units count by 1,024. ValueError when it is neither."""
    number = text.strip().lower().removesuffix("ib").removesuffix("b")
    unit = {"k": 10, "m": 20, "g": 30, "t": 40}.get(number[-1:], 0)
    count = float(number[:-1] if unit else number)
    if not 0 <= count < 1 << 60:
        raise ValueError(f"{text!r} is no size")
    return int(count * (1 << unit))
