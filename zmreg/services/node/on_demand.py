"""What a node loads with the first word about it: most have no use for it, and start sooner."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmreg.model.group_messages import GROUP_WORDS
from zmreg.model.lodging_messages import LodgerGone
from zmreg.model.look_messages import Looked, Measured
from zmreg.model.messages import Demote, Message, SetPlugin
from zmreg.services.seat import storing

if TYPE_CHECKING:
    from zmreg.services.node.groups import Groups
    from zmreg.services.node.looks import Looks
    from zmreg.services.node.metered import Metered
    from zmreg.services.node.node import Node
    from zmreg.services.node.plugins import Plugins
    from zmreg.services.node.topics import TopicMessage, Topics


def groups(node: Node) -> Groups:
    """Its placement groups."""
    if node.placing.groups is None:
        from zmreg.services.node.groups import Groups

        node.placing.groups = Groups(node)
    return node.placing.groups


def plugins(node: Node) -> Plugins:
    """What its workers are to have."""
    if node.plugins is None:
        from zmreg.services.node.plugins import Plugins

        node.plugins = Plugins(node)
    return node.plugins


def looks(node: Node) -> Looks:
    """Its looks into the processes of its machine."""
    if node.visitors.looks is None:
        from zmreg.services.node.looks import Looks

        node.visitors.looks = Looks(node)
    return node.visitors.looks


def metered(node: Node) -> Metered:
    """Its processes' metrics."""
    if node.visitors.metered is None:
        from zmreg.services.node.metered import Metered

        node.visitors.metered = Metered(node)
    return node.visitors.metered


def topics(node: Node) -> Topics:
    """Its events."""
    if node.topics is None:
        from zmreg.services.node.topics import Topics  # late: that is what this module is for

        node.topics = Topics(node)
    return node.topics


def tell_plugins(node: Node, other: bytes, may_lack_them: bool) -> None:
    """Another node is there, and may not have heard of them."""
    if may_lack_them and node.plugins is not None:
        node.plugins.tell(other)


def hear(node: Node, sender: bytes, message: TopicMessage | SetPlugin) -> None:
    """A word about events, or about plugins."""
    if isinstance(message, SetPlugin):
        plugins(node).hear(sender, message)
    else:
        topics(node).hear(sender, message)


def hears(node: Node, sender: bytes, message: Message) -> bool:
    """A word about a restart, placement groups, looks into processes or values that move; False for any other."""
    if isinstance(message, Demote):
        storing.demote(node, sender, message)
        return True
    if isinstance(message, LodgerGone):
        node.nursery.lodger_gone(sender, message)
        return True
    if isinstance(message, Measured):
        metered(node).hear(sender, message)
        return True
    if isinstance(message, Looked):
        looks(node).on_looked(sender, message)
        return True
    if isinstance(message, GROUP_WORDS):
        groups(node).hear(sender, message)
        return True
    return node.restarting.hears(sender, message)
