"""The table of named functions as one process knows it, and the decision whom to call.

A row says: this process serves that name, in this version, with what its node has and the function adds (locs). Of the
rows that have all locs asked for and a version that is wanted, those of the highest version are candidates. Of two of
these, taken at random, the one with fewer of our calls under way gets the call; that is nearly as even as asking all,
and does not send everybody to the same idle host.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from zmreg.core.versions import read_constraint, read_version, show_version
from zmreg.model.errors import FunctionNotFoundError, NoRouteError
from zmreg.model.function_messages import FunctionRow
from zmreg.model.ids import NODE_BYTES, node_of, short
from zmreg.model.record import Record

if TYPE_CHECKING:  # a node only keeps the table
    from random import Random

# Every node keeps every row, and rows are some hundred bytes: a loop that registers without end must not fill them all.
MOST_ROWS: Final = 10_000
MAX_NAME_CHARS: Final = 255
# What a person reads in a listing; more of it is in the source.
MAX_DOC_CHARS: Final = 4_000
MAX_SIGNATURE_CHARS: Final = 1_000
_NEAR: Final = 3
# Of names and reasons in an error's text.
_SHOWN: Final = 8
# Few programs ask for so many different things; those that make up a new constraint for each call must not fill memory.
_MOST_FOUND: Final = 1_024


def row_key(host: bytes, name: str, version: str) -> bytes:
    """What a row is known by among all rows of the cluster."""
    return host + version.encode() + b"\0" + name.encode("utf-8", "surrogatepass")


def key_of(row: FunctionRow) -> bytes:
    """The same, of a row that is at hand."""
    return row_key(row.host, row.name, row.version)


def checked(row: FunctionRow) -> FunctionRow:
    """The row as it is kept: its version and locs written in one way, long texts cut. Raises ValueError."""
    if not row.name or len(row.name) > MAX_NAME_CHARS or "\0" in row.name:
        raise ValueError(f"{row.name[:60]!r} cannot name a function: 1 to {MAX_NAME_CHARS} characters can, without NUL")
    return row.but(
        version=show_version(read_version(row.version)),
        locs=tuple(sorted(set(row.locs))),
        signature=_cut(row.signature, MAX_SIGNATURE_CHARS),
        doc=_cut(row.doc, MAX_DOC_CHARS),
    )


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def lacks(row: FunctionRow, locs: Iterable[str]) -> list[str]:
    """Those of `locs` that neither the function nor its node has."""
    return sorted(set(locs).difference(row.locs, row.node_locs))


def surplus(row: FunctionRow, locs: Iterable[str]) -> int:
    """How many it has beyond those asked for: such hosts are kept for those who need them."""
    return len({*row.locs, *row.node_locs}.difference(locs))


class Functions:
    """All rows known here, by name."""

    def __init__(self, built_in: Collection[str] = ()) -> None:
        """`built_in`: names that can be called though nobody has registered them; misspelt ones may mean these."""
        self._built_in = tuple(built_in)
        self._rows: dict[bytes, FunctionRow] = {}
        self._names: dict[str, dict[bytes, FunctionRow]] = {}
        self.changes = 0
        """Counts up: what was made of the rows before is to be made anew."""

    def check_new(self, row: FunctionRow, replace: bool) -> None:
        """Raises ValueError when its host serves the name in that version already, or a program on the same node does
        with the same locs, unless `replace`; or when its node has too many."""
        key = key_of(row)
        twins = [] if replace else self.twins(row)
        if twins:
            raise ValueError(
                f"process {short(twins[0].host)} on {_node_name(row)} serves {row.name!r}{_in_version(row)} already, "
                f"with the same locs; pass replace=True to take its place, or locs= of your own to serve beside it"
            )
        if key in self._rows:
            if not replace:
                raise ValueError(
                    f"process {short(row.host)} on {_node_name(row)} serves {row.name!r}{_in_version(row)} already; "
                    f"pass replace=True to put another in its place, or another version= to serve both"
                )
        elif len(self._rows) >= MOST_ROWS and sum(1 for _ in self.keys_of(row.host[:NODE_BYTES])) >= MOST_ROWS:
            raise ValueError(
                f"{_node_name(row)} has {MOST_ROWS} named functions, the most a node may have; withdraw some, or "
                f"serve {row.name!r} elsewhere"
            )

    def twins(self, row: FunctionRow) -> list[FunctionRow]:
        """Rows of other programs on its node that nobody can tell from it. An actor has none: a class has instances."""
        if row.actor:
            return []
        node = row.host[:NODE_BYTES]
        return [
            each
            for each in self.named(row.name)
            if each.host != row.host and each.host.startswith(node) and not each.actor
            and (each.version, each.locs) == (row.version, row.locs)
        ]  # fmt: skip

    def put(self, key: bytes, row: FunctionRow) -> None:
        """Know a row, or know it anew."""
        self.changes += 1
        self._rows[key] = row
        self._names.setdefault(row.name, {})[key] = row

    def remove(self, key: bytes) -> None:
        """One that is not known is ignored."""
        row = self._rows.pop(key, None)
        if row is not None:
            self.changes += 1
            rows = self._names[row.name]
            del rows[key]
            if not rows:
                del self._names[row.name]

    def keys_of(self, prefix: bytes) -> Iterator[bytes]:
        """Of a process (by its id), or of all processes of a node (by the first NODE_BYTES of theirs)."""
        return (key for key in self._rows if key.startswith(prefix))

    def drop(self, prefix: bytes) -> list[bytes]:
        """Forget the rows of a process or a node; their keys."""
        keys = list(self.keys_of(prefix))
        for key in keys:
            self.remove(key)
        return keys

    def get(self, key: bytes) -> FunctionRow | None:
        return self._rows.get(key)

    def rows(self, name: str = "") -> list[FunctionRow]:
        """Of one name, or all, sorted by name, the highest version first."""
        found = self._names.get(name, {}).values() if name else self._rows.values()
        by_host = sorted(found, key=lambda row: row.host)
        by_version = sorted(by_host, key=lambda row: read_version(row.version), reverse=True)
        return sorted(by_version, key=lambda row: row.name)

    def named(self, name: str) -> Collection[FunctionRow]:
        """Of one name, in no order."""
        return self._names.get(name, {}).values()

    def versions_of(self, host: bytes, name: str) -> list[str]:
        """Those in which a process serves a name."""
        return [row.version for row in self.named(name) if row.host == host]

    def near(self, name: str) -> list[str]:
        """Names that may be meant, the likeliest first."""
        import difflib  # late: only a misspelt name needs it

        return difflib.get_close_matches(name, {**self._names, **dict.fromkeys(self._built_in)}, _NEAR)

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        return f"<Functions {len(self._names)} names, {len(self)} rows>"


class Wanted(Record):
    """What a call asks for."""

    name: str
    locs: tuple[str, ...] = ()
    version: str = ""
    """A constraint (core/versions.py)."""


class Router:
    """Where the calls of one process go."""

    def __init__(self, table: Functions, chance: Random) -> None:
        self._table = table
        self._chance = chance
        self._under_way: dict[bytes, int] = {}
        self._found: dict[Wanted, tuple[FunctionRow, ...]] = {}
        """Candidates, as of change `_found_at` of the table: a call costs the same for one host and for many."""
        self._found_at = -1

    def candidates(self, wanted: Wanted) -> list[FunctionRow]:
        """The rows that would do, all of one version. Raises ValueError for a constraint that is none."""
        return list(self._candidates(wanted))

    def _candidates(self, wanted: Wanted) -> tuple[FunctionRow, ...]:
        if self._found_at != self._table.changes or len(self._found) > _MOST_FOUND:
            self._found.clear()
            self._found_at = self._table.changes
        found = self._found.get(wanted)
        if found is None:
            found = self._found[wanted] = tuple(self._search(wanted))
        return found

    def _search(self, wanted: Wanted) -> list[FunctionRow]:
        constraint = read_constraint(wanted.version)
        able = [
            (version, row)
            for row in self._table.named(wanted.name)
            if constraint.met_by(version := read_version(row.version))
            and not row.resting
            and not lacks(row, wanted.locs)
        ]
        highest = max((version for version, _ in able), default=None)
        return [row for version, row in able if version == highest]

    def check(self, wanted: Wanted) -> list[FunctionRow]:
        """The candidates, at least one: what a whole graph is looked through for before its first step runs. Raises
        FunctionNotFoundError, NoRouteError, or ValueError for a constraint that is none."""
        return list(self._check(wanted))

    def _check(self, wanted: Wanted) -> tuple[FunctionRow, ...]:
        found = self._candidates(wanted)
        if not found:
            raise self._why_not(wanted)
        return found

    def take(self, wanted: Wanted) -> FunctionRow:
        """Who gets this call; it counts as under way until `ended`. Raises as `check`."""
        found = self._check(wanted)
        if len(found) == 1:
            chosen = found[0]
        else:  # of equals the first, which is as random as the two are
            first = self._chance.randrange(len(found))
            second = self._chance.randrange(len(found) - 1)
            two = (found[first], found[second + (second >= first)])
            chosen = min(two, key=lambda row: (self.under_way(row.host), surplus(row, wanted.locs)))
        self._under_way[chosen.host] = self.under_way(chosen.host) + 1
        return chosen

    def under_way(self, host: bytes) -> int:
        """Our calls there that have not ended."""
        return self._under_way.get(host, 0)

    def ended(self, host: bytes) -> None:
        """A call that was given to `host` is over, in whatever way. More often than it was given is ignored: `forget`
        may have come before."""
        left = self.under_way(host) - 1
        if left > 0:
            self._under_way[host] = left
        else:
            self._under_way.pop(host, None)

    def forget(self, host: bytes) -> None:
        """That process is gone."""
        self._under_way.pop(host, None)

    # -- why there is no way

    def _why_not(self, wanted: Wanted) -> FunctionNotFoundError | NoRouteError:
        rows = self._table.rows(wanted.name)
        if not wanted.name or not rows:
            near = self._table.near(wanted.name)
            meant = f"did you mean {' or '.join(map(repr, near))}?" if near else self._all_names()
            return FunctionNotFoundError(f"nobody has registered a function {wanted.name!r}; {meant}")
        asked = [f"locs {_listed(wanted.locs)}"] if wanted.locs else []
        asked += [f"version {wanted.version!r}"] if wanted.version else []
        reasons = list(dict.fromkeys(self._reason(row, wanted) for row in rows))
        more = f"; and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
        return NoRouteError(
            f"nobody can be called for {wanted.name!r}{' with ' + ' and '.join(asked) if asked else ''}: "
            f"{'; '.join(reasons[:_SHOWN])}{more}. Register it where all of this is there, or ask for less"
        )

    def _reason(self, row: FunctionRow, wanted: Wanted) -> str:
        """Why this row does not do."""
        amiss = []
        if missing := lacks(row, wanted.locs):
            amiss.append(f"lacks {_listed(missing)}")
        if not read_constraint(wanted.version).met_by(read_version(row.version)):
            amiss.append(f"has version {row.version}" if row.version else "has it without a version")
        if row.resting:
            amiss.append("is silent or about to leave")
        return f"{_node_name(row)} {' and '.join(amiss)}"

    def _all_names(self) -> str:
        names = sorted({row.name for row in self._table.rows()})
        if not names:
            return "no function has been registered at all"
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        return f"there are {', '.join(map(repr, names[:_SHOWN]))}{more}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names))


def _in_version(row: FunctionRow) -> str:
    return f" in version {row.version}" if row.version else ""


def _node_name(row: FunctionRow) -> str:
    return f"node {row.node_name or short(node_of(row.host)[:NODE_BYTES])}"
