"""Who is in the cluster and who of them is alive, as one node sees it.

Any message from a node is a sign of life. Silence makes a node SUSPECTED here, which is this node's own business: it is
sent no new work. DEAD is a word of the head alone, and final for that id; whoever is still there under such an id is
fenced, and has to come back as a new node. When the head itself is silent the others go on without it, and nobody is
declared dead until it is back.

Slow is not dead, and that goes for ourselves, too: when this process has been stopped, everybody seems to have been
silent. So a gap between our own ticks makes the silence of all others count anew.

`now` is in seconds of one monotonic clock. Ticks come twice a second or so, and at least every `PAUSE_S`.

Invariants:
- a node has one Joined and then at most one NodeGone, and nothing of it is said after that but Fence.
- DeclareDead is said by the head alone, never of itself.
- `head_lost` implies that the head is not ALIVE.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from zmreg.core.graves import Graves
from zmreg.core.lifecycle import Lifecycle
from zmreg.model.ids import NODE_BYTES
from zmreg.model.mesh_messages import NodeRecord
from zmreg.model.record import Record
from zmreg.model.specs import to_amount

# Beats come every 0.5 s: six in a row are missing.
SUSPECT_S: Final = 3.0
# Fault 8: a node stopped for 5 s is not dead. Fault 7: one that is gone is dead within 10 s.
DEAD_S: Final = 10.0
# A longer gap between two ticks of ours says that we were stopped. Shorter than SUSPECT_S, or it would come too late.
PAUSE_S: Final = 2.0
# A node that nothing is wrong with may need 4.5 s to find the next head: it asks once a second, over what connects anew
# every 2 s. Where silence means death earlier, its coming back gets this time all the same.
RETURN_S: Final = 6.0
# A node that was declared dead is told so once a second however much it talks: it may be in the middle of a batch.
FENCE_S: Final = 1.0
# Nodes that are gone and still listed; older ones are only known to be gone.
_GONE_KEPT: Final = 100


def return_s(dead_s: float) -> float:
    """How long a new head waits for the nodes of the one before. `dead_s`: the silence that means death."""
    return max(dead_s, RETURN_S)


class NodeState(StrEnum):
    """How a node stands, as seen from here."""

    ALIVE = "ALIVE"
    SUSPECTED = "SUSPECTED"  # silent: nothing new goes there, what is there stays
    DEAD = "DEAD"  # the head's word; every process on it counts as dead
    LEFT = "LEFT"  # it has ended in peace


class NodeMove(StrEnum):
    """What can happen to a node."""

    DOUBTED = "doubted"
    HEARD = "heard"
    DECLARED = "declared dead"
    LEAVING = "left"


MOVES: Final = {
    (NodeState.ALIVE, NodeMove.DOUBTED): NodeState.SUSPECTED,
    (NodeState.SUSPECTED, NodeMove.HEARD): NodeState.ALIVE,
    (NodeState.ALIVE, NodeMove.DECLARED): NodeState.DEAD,
    (NodeState.SUSPECTED, NodeMove.DECLARED): NodeState.DEAD,
    (NodeState.ALIVE, NodeMove.LEAVING): NodeState.LEFT,
    (NodeState.SUSPECTED, NodeMove.LEAVING): NodeState.LEFT,
}


class Joined(Record):
    """A node that was not known: connect to it, and tell whoever waits for room."""

    node: bytes


class Suspected(Record):
    """Send it nothing new, until Recovered or NodeGone."""

    node: bytes
    reason: str


class Recovered(Record):
    """It has been heard again."""

    node: bytes


class DeclareDead(Record):
    """At the head: write it down, then tell every node. NodeGone follows for this node itself."""

    node: bytes
    reason: str


class NodeGone(Record):
    """It is gone for good, with every process on it (`left`: in peace). Of oneself: end, and join anew as another."""

    node: bytes
    reason: str
    left: bool


class HeadLost(Record):
    """Nobody decides now who joins, who is dead, what actors are called. All else goes on."""

    node: bytes
    reason: str


class HeadBack(Record):
    """The head has been heard again, or there is a new one: state anew what only it keeps."""

    node: bytes


class FormerHead(Record):
    """Tell this node that it is not the head: the cluster has seen a later one. A copy of the state was started."""

    record: NodeRecord
    epoch: int
    """The latest one seen."""


class Fence(Record):
    """Answer this node, which was declared dead, that it is no longer one of us; its message is not to be handled."""

    node: bytes


class Appeal(Record):
    """Somebody else (`sender`) says that we were declared dead: have the head say whether it is so."""

    head: bytes
    sender: bytes


NodeEffect = Joined | Suspected | Recovered | DeclareDead | NodeGone | HeadLost | HeadBack | Fence | FormerHead | Appeal


class Departed(Record):
    """A node that is gone: its last record, DEAD or LEFT, and why."""

    record: NodeRecord
    state: NodeState
    reason: str


class MemberStatistics(Record):
    """`alive` and `suspected` are of this moment (this node included), the others are counts since the start."""

    alive: int
    suspected: int
    dead: int
    left: int
    suspicions: int
    fenced: int
    pauses: int


class _Member:
    __slots__ = ("heard", "life", "record")

    def __init__(self, record: NodeRecord, now: float) -> None:
        self.record = record
        self.heard = now
        self.life: Lifecycle[NodeState, NodeMove] = Lifecycle(f"node {node_name(record)}", NodeState.ALIVE, MOVES)

    def __repr__(self) -> str:
        free = dict(self.record.available)
        amounts = [f"{to_amount(free.get(name, 0)):g}/{to_amount(most):g} {name}" for name, most in self.record.total]
        role = ", head" if self.record.is_head else ""
        return f"<Node {node_name(self.record)} [{', '.join(amounts)}] {self.life.state}{role}>"


def node_name(record: NodeRecord) -> str:
    """`n2 (1f3a2b4c)`: how messages name a node."""
    return f"{record.name} ({record.node[:NODE_BYTES].hex()})"


class Members:
    """The members table with what this node thinks of each. `me` is the own node id; its record comes like others'."""

    def __init__(self, me: bytes, is_head: bool, dead_s: float = DEAD_S) -> None:
        """`dead_s`: how long a silence means death; what is suspected, and what is a pause of ours, follow from it."""
        self.me = me
        self.head: bytes | None = me if is_head else None
        """The node that is or was last the head; None before its record came, and after it has gone."""
        self.head_lost = False
        self.epoch = 0
        """The latest that a head was in. A head of an earlier one is not listened to (fault 14)."""
        self._dead_s = dead_s
        self._suspect_s = dead_s * SUSPECT_S / DEAD_S
        self._pause_s = dead_s * PAUSE_S / DEAD_S
        self._is_head = is_head
        self._members: dict[bytes, _Member] = {}
        self._gone: dict[bytes, Departed] = {}
        self._dead = Graves()
        self._left = Graves()
        self._fenced_at: dict[bytes, float] = {}
        self._ticked: float | None = None
        self._over = False  # we ourselves are gone: who is fenced or has left judges nobody
        self._deaths = self._leaves = self._suspicions = self._fenced = self._pauses = 0

    # -- what comes in -------------------------------------------------------------------------------------------------

    def on_record(self, record: NodeRecord, now: float) -> list[NodeEffect]:
        """A node's record, new or changed, from whomever. No sign of life: somebody else may have passed it on."""
        node = record.node
        if node in self._dead:
            return self._fence(node, now)
        if node in self._left:
            return []
        if node != self.me and (judged := self._judge_epoch(record, now)) is not None:
            return judged
        if node in self._members:
            self._members[node].record = record
            return []
        self._members[node] = _Member(record, now)
        if node == self.me:
            return []
        return [Joined(node), *(self._crown(node) if record.is_head else [])]

    def _judge_epoch(self, record: NodeRecord, now: float) -> list[NodeEffect] | None:
        """None: nothing is wrong. Epochs count the starts of heads from one state, so that the later one is right."""
        rival = record.is_head and record.epoch == self.epoch > 0 and record.node > self.me
        if self._is_head and (record.epoch > self.epoch or rival):
            return self._give_up(
                f"the cluster has had another head, of epoch {record.epoch}, and this one is of epoch {self.epoch}: "
                "its state is an old copy"
            )
        if not record.is_head or record.node == self.head or record.epoch > self.epoch:
            if record.is_head:
                self.epoch = record.epoch
            return None
        if not record.epoch and not self.epoch:
            return self._fence(record.node, now) if self._is_head else None
        return [FormerHead(record, self.epoch)] if self._fence(record.node, now) else []

    def on_beat(self, node: bytes, now: float) -> list[NodeEffect]:
        """Any message has come from `node` itself. Said for each of them: the usual case is a few assignments."""
        member = self._members.get(node)
        if member is None:
            return self._fence(node, now) if node in self._dead else []
        member.heard = now
        if member.life.state is NodeState.ALIVE:
            return []
        member.life.move(NodeMove.HEARD)
        back = node == self.head and self.head_lost
        self.head_lost = self.head_lost and not back
        return [Recovered(node), *([HeadBack(node)] if back else [])]

    def on_refused(self, node: bytes, now: float) -> list[NodeEffect]:
        """Its port refuses connections: the machine is there, the process is not. No need to wait for silence."""
        reason = "its port refuses connections: the process is gone"
        if node == self.me or node not in self._members or self._over:
            return []
        if self._is_head:
            return self._declare(node, reason)
        return self._doubt(node, reason) + self._miss_head(node, reason)

    def on_declared_dead(self, node: bytes, reason: str) -> list[NodeEffect]:
        """The head says so; at the head: whoever may decide it (a user, or the node's own rejoining) has."""
        if node not in self._members:
            if node not in self._left:
                self._dead.bury(node)  # the word may be here before the record
            return self._give_up(reason) if node == self.me else []
        if self._is_head and node != self.me:
            return self._declare(node, reason)
        return self._end(node, NodeMove.DECLARED, reason)

    def on_fenced(self, sender: bytes, reason: str, epoch: int) -> list[NodeEffect]:
        """`sender`, which follows a head of that epoch, says that we were declared dead. The word of the head that we
        follow is final. While there is none, any member's is, as it has that from a head. A head hears only of a later
        one. Of anybody else's word the head is asked, and of an earlier head's nothing is heard.
        """
        if epoch < self.epoch or (self._is_head and epoch == self.epoch):
            return []
        head = None if self.head_lost else self.head
        if self._is_head or sender == head or (head is None and sender in self._members):
            return self._give_up(reason)
        return [] if head is None else [Appeal(head, sender)]

    def on_leave(self, node: bytes) -> list[NodeEffect]:
        """It ends in peace, as it says itself (or as the head passes on)."""
        if node not in self._members:
            if node not in self._dead:
                self._left.bury(node)
            return []
        return self._end(node, NodeMove.LEAVING, "left")

    def tick(self, now: float) -> list[NodeEffect]:
        """Judge the silences."""
        paused = self._ticked is not None and now - self._ticked > self._pause_s
        self._ticked = now
        self._fenced_at = {node: since for node, since in self._fenced_at.items() if now - since < FENCE_S}
        if paused:
            self._pauses += 1
            for member in self._members.values():
                member.heard = now
        effects: list[NodeEffect] = []
        for node, member in list(self._members.items()):
            silent = now - member.heard
            if silent < self._suspect_s or node == self.me or self._over:
                continue
            reason = f"silent for {silent:.1f} s"
            if silent >= self._dead_s and self._is_head:
                effects += self._declare(node, reason)
                continue
            effects += self._doubt(node, reason)
            if silent >= self._dead_s:
                effects += self._miss_head(node, reason)
        return effects

    # -- what is decided -----------------------------------------------------------------------------------------------

    def _doubt(self, node: bytes, reason: str) -> list[NodeEffect]:
        life = self._members[node].life
        if not life.can(NodeMove.DOUBTED):
            return []
        life.move(NodeMove.DOUBTED, reason)
        self._suspicions += 1
        return [Suspected(node, reason)]

    def _miss_head(self, node: bytes, reason: str) -> list[NodeEffect]:
        if node != self.head or self.head_lost or node == self.me:
            return []
        self.head_lost = True
        return [HeadLost(node, reason)]

    def _declare(self, node: bytes, reason: str) -> list[NodeEffect]:
        return [DeclareDead(node, reason), *self._end(node, NodeMove.DECLARED, reason)]

    def _end(self, node: bytes, move: NodeMove, reason: str) -> list[NodeEffect]:
        member = self._members.pop(node)
        member.life.move(move, reason)
        left = move is NodeMove.LEAVING
        (self._left if left else self._dead).bury(node)
        self._leaves += left
        self._deaths += not left
        self._gone[node] = Departed(member.record, member.life.state, reason)
        if len(self._gone) > _GONE_KEPT:
            del self._gone[next(iter(self._gone))]
        self._over = self._over or node == self.me
        lost = self._miss_head(node, reason)
        if node == self.head:
            self.head = None
        return [NodeGone(node, reason, left), *lost]

    def _crown(self, node: bytes) -> list[NodeEffect]:
        """A head has come. One that was there before is gone: the state directory is locked by one process."""
        before, self.head = self.head, node
        effects: list[NodeEffect] = []
        if before is not None:
            effects += self._end(before, NodeMove.DECLARED, f"another head, {node_name(self._members[node].record)}")
        if self.head_lost or before is not None:
            self.head_lost = False
            effects.append(HeadBack(node))
        return effects

    def _fence(self, node: bytes, now: float) -> list[NodeEffect]:
        if node == self.me or now - self._fenced_at.get(node, float("-inf")) < FENCE_S:
            return []
        self._fenced_at[node] = now
        self._fenced += 1
        return [Fence(node)]

    def _give_up(self, reason: str) -> list[NodeEffect]:
        """Declared dead before the own record was there."""
        told, self._over = self._over, True
        return [] if told else [NodeGone(self.me, reason, False)]

    # -- questions -----------------------------------------------------------------------------------------------------

    def usable(self, node: bytes) -> bool:
        """Whether new work may go there: it is a member and not suspected."""
        member = self._members.get(node)
        return member is not None and member.life.state is NodeState.ALIVE

    def is_fenced(self, node: bytes) -> bool:
        """Whether it was declared dead: its messages are not to be handled."""
        return node in self._dead

    def state(self, node: bytes) -> NodeState | None:
        """None: never heard of."""
        if node in self._members:
            return self._members[node].life.state
        if node in self._dead:
            return NodeState.DEAD
        return NodeState.LEFT if node in self._left else None

    def record(self, node: bytes) -> NodeRecord | None:
        """A member's record as last heard."""
        member = self._members.get(node)
        return None if member is None else member.record

    def records(self) -> tuple[NodeRecord, ...]:
        """Of all members, the suspected ones included, in the order they came."""
        return tuple(member.record for member in self._members.values())

    def alive(self) -> tuple[bytes, ...]:
        """The members that are not suspected, in the order they came; this node is one of them."""
        return tuple(node for node, member in self._members.items() if member.life.state is NodeState.ALIVE)

    def departed(self) -> tuple[Departed, ...]:
        """The last hundred nodes that have gone, oldest first."""
        return tuple(self._gone.values())

    def story(self, node: bytes) -> tuple[str, ...]:
        """What has happened to a member lately, oldest first."""
        return self._members[node].life.story() if node in self._members else ()

    def statistics(self) -> MemberStatistics:
        alive = len(self.alive())
        return MemberStatistics(
            alive,
            len(self._members) - alive,
            self._deaths,
            self._leaves,
            self._suspicions,
            self._fenced,
            self._pauses,
        )

    def __repr__(self) -> str:
        now = self.statistics()
        head = "none" if self.head is None else self.head[:NODE_BYTES].hex()
        counts = f"{now.alive} alive, {now.suspected} suspected, {now.dead} dead, {now.left} left"
        return f"<Members {counts} | head {head}{' lost' if self.head_lost else ''}>"

    def table(self) -> str:
        """One line for each member."""
        return "\n".join(repr(member) for member in self._members.values())
