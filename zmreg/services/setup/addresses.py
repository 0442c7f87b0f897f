"""HOST:PORT: read, compared, tried."""

from __future__ import annotations

from zmreg.model.errors import ClusterError

# A machine that is there answers a SYN at once; one that drops packets is given this long.
PROBE_S = 3.0


def split_address(address: str) -> tuple[str, int]:
    """(host, port) of `HOST:PORT` or `[V6]:PORT`. ValueError when it is neither."""
    host, _, port = address.strip().removeprefix("tcp://").rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65_536:
        raise ValueError(f"address {address!r} is not HOST:PORT, e.g. 192.168.1.10:7550")
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    return host in ("localhost", "::1") or host.startswith("127.")


def same_place(one: str, other: str) -> bool:
    """Whether two addresses name the same port of the same host, perhaps one by name and one by number."""
    if one == other:
        return True
    if not one or not other:
        return False
    (host, port), (other_host, other_port) = split_address(one), split_address(other)
    if port != other_port:
        return False
    return host == other_host or bool(_numbers(host) & _numbers(other_host))


def _numbers(host: str) -> set[str]:
    import socket  # late, as below: 5 ms, and most addresses are compared as they are written

    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return set()


def probe(address: str, timeout_s: float = PROBE_S) -> None:
    """Return if somebody listens there. ClusterError if not, with what the system says. ValueError: no address."""
    import socket

    host, port = split_address(address)
    try:
        socket.create_connection((host, port), timeout_s).close()
    except OSError as error:
        raise ClusterError(
            f"nothing answers at {address}: {error}; is the head up, and reachable from this machine? (`zmreg status` "
            "there says where it listens)"
        ) from None


def host_for(contact: str) -> str:
    """The address to listen on so that whoever is at `contact` reaches us. Raises ClusterError without a route."""
    host, _ = split_address(contact)
    if is_loopback(host):
        return "127.0.0.1"
    from zmreg.net.mesh import advertised  # late: zmq, which a command that only reads addresses has no use for

    return advertised("0.0.0.0", host)
