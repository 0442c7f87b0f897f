"""`zmreg doctor`: looks at this machine and, if there is one, at the cluster, and says what is wrong and what next."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from zmreg.tools.cli.common import AS_JSON, colour, say_json, usage_errors, which_cluster

if TYPE_CHECKING:
    from collections.abc import Iterable

    from zmreg.services.setup.checks import Finding

COLOURS = {"ok": "green", "warning": "yellow", "wrong": "red"}


@click.command()
@which_cluster
@AS_JSON
def doctor(address: str | None, key: str | None, as_json: bool) -> None:
    """Look for what commonly goes wrong: limits, shared memory, keys, leftovers; ports, clocks, versions of all nodes.

    Exit code 1 if something is wrong; warnings alone do not count.

    Example: zmreg doctor
    """
    from zmreg.model.errors import ClusterError
    from zmreg.services.setup import checks
    from zmreg.services.setup.observer import observe

    findings = list(checks.of_machine())
    with usage_errors():
        try:
            with observe(address, key) as observer:
                findings += checks.of_cluster(observer)
        except ClusterError as error:
            if address:
                raise
            findings.append(checks.Finding("cluster", "ok", f"not looked at: {error}"))
    if as_json:
        rows = [{"check": each.check, "verdict": each.verdict, "text": each.text} for each in findings]
        say_json({"findings": rows, "wrong": _count(findings, "wrong"), "warnings": _count(findings, "warning")})
    else:
        for each in findings:
            click.echo(f"{colour(each.verdict.ljust(8), COLOURS[each.verdict])} {each.check:<14} {each.text}")
    if _count(findings, "wrong"):
        sys.exit(1)


def _count(findings: Iterable[Finding], verdict: str) -> int:
    return sum(each.verdict == verdict for each in findings)
