"""What a node loads with the first word about it: most have no use for it, and start sooner."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zmreg.services.node import Node
    from zmreg.services.topics import TopicMessage, Topics


def topics(node: Node) -> Topics:
    """Its events."""
    if node.topics is None:
        from zmreg.services.topics import Topics  # late: that is what this module is for

        node.topics = Topics(node)
    return node.topics


def on_topics(node: Node, sender: bytes, message: TopicMessage) -> None:
    """A word about events."""
    topics(node).hear(sender, message)
