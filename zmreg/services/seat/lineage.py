"""How stored results can be made again when their bytes are lost: a recipe for each task that has made one.

A recipe keeps the call, never the values it took: an input whose last handle is gone is freed all the same, and made
anew by its own recipe when it is needed. Only small inputs, which live in this process anyway, are kept as they are,
and large plain arguments within a bound (arguments.py). What `put` has made, or another process owns, must still be
held by somebody. All methods run under the client's lock.

Each run is charged to the task's `max_retries`: the first loss of a result is its second attempt, and so on.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from zmreg.core.streams import ONE_ITEM
from zmreg.core.tasks import Fail, RetryPolicy
from zmreg.model.errors import ObjectLostError
from zmreg.model.ids import counter_of, owner_of, short
from zmreg.services.calling.calls import Dep, Task, TaskHome, Template, describe
from zmreg.services.calling.peers import Peer
from zmreg.services.seat.arguments import SHARE, KeptArguments
from zmreg.services.seat.entries import FAILED, INLINE, PENDING, STORED, Borrowed, Entry, Plain, Stored
from zmreg.services.seat.sites import made_at
from zmreg.wire import payload

if TYPE_CHECKING:
    from zmreg.services.calling.tasks import Tasks

# As Ray has it: what the calls behind living results may take, beyond which the oldest cannot be made again.
LINEAGE_BYTES: Final = 1 << 30
# A recipe with one input, measured; its payload and small inputs come on top.
RECIPE_BYTES: Final = 700


class Source:
    """Where an input of a recipe comes from: held when small, else looked for, else made by its own recipe."""

    __slots__ = ("_held", "_kept", "_seen", "index", "nbytes_plain", "object_id", "recipe", "where")

    def __init__(self, where: int | str, entry: Entry, by_id: bool = False) -> None:
        """`by_id`: it is found under its id, and a copy of its value would not do."""
        self.where = where
        self.object_id = entry.object_id
        # With refs inside, it would keep their values, too.
        self._held = entry if entry.state == INLINE and not entry.contained else None
        self._seen = weakref.ref(entry)
        value = entry.value
        self.recipe = value.recipe if isinstance(value, Stored) else None
        if isinstance(entry.task, Rebuilt):  # it is just being made again
            self.recipe = entry.task.recipe
        self.index = entry.counter - self.recipe.counter if self.recipe is not None else 0
        if self._held is not None and isinstance(entry, Borrowed):  # its owner need not keep it for us
            self._held = None if by_id else Entry(entry.owner, entry.counter, INLINE, entry.value)
        self.nbytes_plain = entry.nbytes if isinstance(entry, Plain) and self._held is None else 0
        """Of an argument that was passed by value and lies in the store; 0 for any other."""
        self._kept: Stored | None = None

    def keep_plain(self) -> None:
        """Keep the bytes of a large plain argument for another run."""
        entry = self._seen()
        if self.nbytes_plain and entry is not None and isinstance(entry.value, Stored):
            self._kept = entry.value

    def let_go(self) -> None:
        """Later arguments need the room."""
        self._kept = None

    @property
    def nbytes(self) -> int:
        """Of the value, if it is kept here."""
        return self._held.nbytes if self._held is not None else 0

    def living(self, same: bool) -> Entry | None:
        """The entry, if anybody holds it, or one that has taken its place; `same`: under the same id."""
        found = self._held or self._seen()
        if found is None and self._kept is not None:
            found = Plain(owner_of(self.object_id), counter_of(self.object_id), STORED, self._kept)
            self._seen = weakref.ref(found)
        if found is None and self.recipe is not None:
            again = self.recipe.again
            found = again.get((self.index, True)) or (None if same else again.get((self.index, False)))
        return found


class Recipe:
    """The call behind stored values. Shared by the values of one call; each holds it."""

    __slots__ = (
        "__weakref__", "_gone", "again", "attempt", "counter", "depth", "home", "nbytes", "payload", "pins", "siblings",
        "sources", "template", "why_not",
    )  # fmt: skip

    def __init__(self, task: Task, gone: deque[int]) -> None:
        """`gone` is told when nobody needs it any more."""
        template = task.template
        home = task.peer
        assert home is not None
        self.counter = task.counter
        self.template = template
        self.payload = task.payload
        self.depth = task.depth
        self.attempt = task.attempt
        self.home: TaskHome = home if template.pool is None else template.pool
        self.sources: tuple[Source, ...] = ()
        self.pins: tuple[Source, ...] = ()
        """Refs inside its arguments, where they are known by their ids."""
        self.siblings: tuple[weakref.ref[Entry], ...] = ()
        self.again: weakref.WeakValueDictionary[tuple[int, bool], Entry] = weakref.WeakValueDictionary()
        """Values made once more after they had been freed, by (place, whether under the same id)."""
        self.nbytes = 0
        self.why_not = ""
        """Why it can never run again."""
        self._gone = gone
        if not template.max_retries:
            option = "max_retries" if home.is_pool else "max_task_retries"
            self.drop(f"it may not run twice ({option}=0)")
            return
        self.sources = tuple(Source(where, entry) for where, entry in task.deps or ())
        # An actor's call holds the actor, which is not to live for the sake of what it may have to repeat.
        pins = (task.pins or [])[0 if home.is_pool else 1 :]
        self.pins = tuple(Source("", entry, by_id=True) for entry in pins)
        if len(task.entries) > 1:
            self.siblings = tuple(weakref.ref(entry) for entry in task.entries)
        self.nbytes = RECIPE_BYTES + len(task.payload) + sum(source.nbytes for source in self.sources)

    def drop(self, why: str) -> None:
        """Keep only the name."""
        self.why_not = why
        self.payload = b""
        self.sources = self.pins = ()

    def __del__(self) -> None:
        gone = getattr(self, "_gone", None)
        if gone is not None:  # an interrupt may have ended __init__
            gone.append(self.counter)


class Rebuilt(Task):
    """One more run of a recipe, for the very values that were lost."""

    __slots__ = ("recipe",)

    recipe: Recipe


class RebuildRefusedError(Exception):
    """A value cannot be made again, and why."""


Run = tuple[Recipe, bool]
"""A recipe, and whether its values keep their ids."""


class Lineage:
    """The recipes of one owner, and what follows when a value of theirs is lost."""

    def __init__(self, tasks: Tasks, limit_bytes: int = LINEAGE_BYTES) -> None:
        self._tasks = tasks
        self.limit_bytes = limit_bytes
        self.nbytes = 0
        self.arguments = KeptArguments(limit_bytes)
        self.rebuilt = 0
        """Runs made again so far."""
        self.on_revived: Callable[[tuple[bytes, ...]], None] = lambda object_ids: None
        """Told of objects that were freed, and come to life again under the same ids."""
        self._kept: dict[int, tuple[weakref.ref[Recipe], int]] = {}
        """By the number of the call, oldest first: (recipe, what it takes)."""
        self._gone: deque[int] = deque()

    def limit_arguments(self, store_bytes: int) -> None:
        """Our node's store has this size."""
        self.arguments.limit_bytes = min(self.limit_bytes, store_bytes // SHARE)

    def __len__(self) -> int:
        self._sweep()
        return len(self._kept)

    # -- keeping ----------------------------------------------------------------------------------------------------

    def keep(self, task: Task) -> None:
        """The task is over, or one of its values is there before: what it has stored can be made again by it."""
        recipe = task.recipe if isinstance(task, Rebuilt) else None
        here = self._tasks.wires.node
        is_far = False
        for entry in task.entries:
            value = entry.value
            if isinstance(value, Stored):
                is_far = is_far or value.holder != here
                value.recipe = recipe = value.recipe or recipe or self._recipe_of(task)
        if recipe is not None:
            recipe.attempt = task.attempt
            if is_far and task.deps:  # what is here is lost only together with us
                self.arguments.keep(recipe)

    def keep_item(self, task: Task, entry: Entry, template: Template) -> None:
        """An item of a generator was stored. It can be made again by itself, by a call under its own number."""
        value = entry.value
        if isinstance(value, Stored):
            self._sweep()
            recipe = Recipe(task, self._gone)
            recipe.counter, recipe.template, recipe.siblings = entry.counter, template, ()
            value.recipe = self._note(recipe)
            if value.holder != self._tasks.wires.node and task.deps:
                self.arguments.keep(recipe)

    def _recipe_of(self, task: Task) -> Recipe:
        """The one that an earlier value of the task has, or whoever has taken that value; else a new one."""
        self._sweep()
        seen, _ = self._kept.get(task.counter, (None, 0))
        return (seen() if seen is not None else None) or self._note(Recipe(task, self._gone))

    def _note(self, recipe: Recipe) -> Recipe:
        self._kept[recipe.counter] = (weakref.ref(recipe), recipe.nbytes)
        self.nbytes += recipe.nbytes
        while self.nbytes > self.limit_bytes and self._kept:
            counter = next(iter(self._kept))
            seen, nbytes = self._kept.pop(counter)
            self.nbytes -= nbytes
            self.arguments.over(counter)
            oldest = seen()
            if oldest is not None and not oldest.why_not:
                oldest.drop(f"how to make it was forgotten: the calls of later results take {self.limit_bytes} bytes")
        return recipe

    def _sweep(self) -> None:
        while self._gone:
            counter = self._gone.popleft()
            _, nbytes = self._kept.pop(counter, (None, 0))
            self.nbytes -= nbytes
            self.arguments.over(counter)

    # -- making again -----------------------------------------------------------------------------------------------

    def rebuild(self, entry: Entry) -> None:
        """Have the bytes of an own STORED entry made again: it is PENDING then. RebuildRefusedError: they cannot be."""
        value = entry.value
        assert isinstance(value, Stored)
        recipe = value.recipe
        if recipe is None:
            raise RebuildRefusedError(
                "it was made by put(), which cannot run again: with put(x, replicas=2) two nodes have it"
            )
        running = self._tasks.live.get(recipe.counter)
        # A sibling was missed before; or the call has sent this one ahead, and is not over (`make_up`).
        if running is not None and (isinstance(running, Rebuilt) or not recipe.why_not):
            self._forget_bytes(entry, running)
        else:
            self._run_again(recipe, entry)

    def make_up(self, task: Task) -> None:
        """The task is over. Values that it had sent ahead and that were lost since are PENDING: one more run."""
        missed = [entry for entry in task.entries if entry.state == PENDING]
        if not missed:
            return
        try:
            self._run_again(task.recipe if isinstance(task, Rebuilt) else self._recipe_of(task), missed[0])
        except RebuildRefusedError as refused:
            for entry in missed:
                text = f"object {short(entry.object_id)} was lost before its call was over; {refused}"
                text += made_at(entry.object_id)
                error = ObjectLostError(text, object_id=entry.object_id.hex())
                entry.settle(FAILED, payload.pack_failure(error))

    def _run_again(self, recipe: Recipe, entry: Entry) -> None:
        order = self._plan(recipe)
        # An item's number says which one it is.
        started = [
            self._revive(each) if same or each.template.nreturns == ONE_ITEM else self._repeat(each)
            for each, same in order[:-1]
        ]
        task = self._rerun(recipe, entry)
        self._forget_bytes(entry, task)
        self._prepare(task, recipe)
        for each in (*started, task):
            self.rebuilt += 1
            self._tasks.start(each)

    def _forget_bytes(self, entry: Entry, task: Task) -> None:
        stored = entry.value
        if isinstance(stored, Stored):
            stored.outbox = None  # to be made again under the same id: nothing is to be freed
        entry.state, entry.value, entry.task = PENDING, None, task

    def _rerun(self, recipe: Recipe, entry: Entry | None = None) -> Rebuilt:
        """A task for the recipe's own ids. Values that somebody holds keep their entries."""
        task = Rebuilt(recipe.counter, recipe.template, recipe.payload, recipe.depth)
        task.recipe = recipe
        siblings = [ref() for ref in recipe.siblings] or [entry]
        me = self._tasks.wires.me
        task.entries = tuple(
            Entry(me, recipe.counter + index) if each is None else each for index, each in enumerate(siblings)
        )
        return task

    def _plan(self, last: Recipe) -> list[Run]:
        """What to run, inputs first. Not by recursion: chains are longer than the stack is deep."""
        order: dict[Run, None] = {}
        stack: list[Run] = [(last, True)]
        while stack:
            run = stack[-1]
            missing = [] if run in order else [each for each in self._missing(run[0]) if each not in order]
            stack += missing
            if not missing:
                order[stack.pop()] = None
        return list(order)

    def _missing(self, recipe: Recipe) -> list[Run]:
        """What has to run before it."""
        name = self._name(recipe)
        if recipe.why_not:
            raise RebuildRefusedError(f"{name} made it: {recipe.why_not}")
        policy = RetryPolicy(recipe.template.max_retries)
        if isinstance(verdict := policy.decide("system", recipe.attempt + 1), Fail):
            raise RebuildRefusedError(f"{name} made it, and may not run again: {verdict.reason}")
        if isinstance(recipe.home, Peer) and self._tasks.peers.get(recipe.home.actor_id) is not recipe.home:
            raise RebuildRefusedError(f"{name} made it, and its actor is gone")
        missing = []
        for same, sources in ((False, recipe.sources), (True, recipe.pins)):
            for source in sources:
                entry = source.living(same)
                if entry is None and source.recipe is not None:
                    missing.append((source.recipe, same))
                elif entry is None or entry.state not in (PENDING, INLINE, STORED):
                    raise RebuildRefusedError(f"{name} made it, and {_why_missing(source, entry)}")
        return missing

    def _name(self, recipe: Recipe) -> str:
        return describe(Task(recipe.counter, recipe.template, b"", 0), self._tasks.wires.me)

    def _repeat(self, recipe: Recipe) -> Task:
        """Run for values that were freed: under new numbers, as nobody knows them by the old ones."""
        tasks, count = self._tasks, recipe.template.nreturns
        first = tasks.take_numbers(max(1, count))
        task = Task(first, recipe.template, recipe.payload, recipe.depth)
        task.entries = tuple(Entry(tasks.wires.me, first + index) for index in range(count))
        for entry in task.entries:
            entry.task = task
        recipe.again.update({(index, False): entry for index, entry in enumerate(task.entries)})
        self._prepare(task, recipe)
        return task

    def _revive(self, recipe: Recipe) -> Task:
        """Run for values that were freed, and are known by their ids inside pickled arguments."""
        task = self._rerun(recipe)
        fresh = [entry for entry in task.entries if entry.state == PENDING]
        for entry in fresh:
            entry.task = task
            recipe.again[entry.counter - recipe.counter, True] = entry
            self._tasks.sharing.show(entry)
        recipe.siblings = tuple(weakref.ref(entry) for entry in task.entries)
        self.on_revived(tuple(entry.object_id for entry in fresh))
        self._prepare(task, recipe)
        return task

    def _prepare(self, task: Task, recipe: Recipe) -> None:
        recipe.attempt += 1
        task.attempt = recipe.attempt
        task.peer = recipe.home
        deps: list[Dep] = []
        for source in recipe.sources:
            entry = source.living(False)
            assert entry is not None
            deps.append((source.where, entry))
        task.deps = deps or None
        task.pins = [entry for source in recipe.pins if (entry := source.living(True)) is not None] or None
        self._tasks.live[task.counter] = task

    def statistics(self) -> dict[str, int]:
        """Counts for stats()."""
        return {
            "recipes": len(self),
            "recipe_bytes": self.nbytes,
            "argument_bytes": self.arguments.nbytes,
            "rebuilt": self.rebuilt,
        }


def _why_missing(source: Source, entry: Entry | None) -> str:
    what = f"its input, object {source.object_id.hex()[-8:]}"
    if source.nbytes_plain and entry is None:
        return (
            "its arguments were a large plain value, and such are kept for results at other nodes within a quarter of "
            "the store: put() it, and pass the ref"
        )
    if entry is not None:
        return f"{what}, {'failed' if entry.state == FAILED else 'was freed'}"
    return f"{what}, came from put() or from another process, and nobody holds it any more"
