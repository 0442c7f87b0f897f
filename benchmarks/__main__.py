"""`python -m benchmarks`: every workload against every peer that is installed, in turn, in one run.

Prints the table with ratios and writes it, with the raw figures, into benchmarks/results/.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from benchmarks import peers, report, workloads
from benchmarks.harness import ROOT, Cell, Settings, run_all
from benchmarks.machine import notes
from benchmarks.memory import become_subreaper

QUICK = Settings(rounds=1, seconds=0.4, quick=True)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=_epilog(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("workloads", nargs="*", metavar="workload", help="which (default: all)")
    parser.add_argument("--peers", default="", help="comma-separated, bare is always among them (default: all)")
    parser.add_argument("--rounds", type=int, help="rounds, interleaved (default 3; slow starters get fewer)")
    parser.add_argument("--seconds", type=float, help="length of each timed loop (default 1)")
    parser.add_argument(
        "--quick", action="store_true", help="zmreg only unless --peers, one short round, nothing written"
    )
    parser.add_argument("--no-save", action="store_true", help="print only")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="directory of the results")
    return parser.parse_args(arguments)


def chosen_peers(text: str, quick: bool) -> list[str]:
    """The peers asked for, in the order of the tables. Raises KeyError for an unknown one."""
    if not text:
        return list(peers.NAMES[:2] if quick else peers.NAMES)
    wanted = {name.strip() for name in text.split(",") if name.strip()}
    for name in wanted:
        peers.peer_class(name)
    return [name for name in peers.NAMES if name in wanted or name == report.FLOOR]


def chosen_settings(options: argparse.Namespace) -> Settings:
    """Defaults, shortened by --quick, overridden by --rounds and --seconds."""
    base = QUICK if options.quick else Settings()
    rounds = base.rounds if options.rounds is None else options.rounds
    seconds = base.seconds if options.seconds is None else options.seconds
    if rounds < 1 or seconds <= 0:
        raise ValueError(f"--rounds must be at least 1 and --seconds above 0, got {rounds} and {seconds:g}")
    return Settings(rounds, seconds, base.quick)


def tell(cell: Cell) -> None:
    """One line of progress per cell, on standard error."""
    figures = ", ".join(f"{name} {value:,.4g}" for name, value in cell.figures.items())
    where = f"{cell.workload:16} {cell.peer:12} round {cell.round + 1}"
    print(f"{where} {cell.status:8} {cell.seconds:5.1f} s  {figures or cell.why}", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """Run, print, write. Returns 2 for a wrong command line, 1 when zmreg or the floor failed anywhere, else 0."""
    options = parse(arguments)
    try:
        works = [workloads.workload(name) for name in options.workloads or workloads.NAMES]
        names = chosen_peers(options.peers, options.quick)
        settings = chosen_settings(options)
    except (KeyError, ValueError) as error:
        print(f"python -m benchmarks: {error.args[0]}", file=sys.stderr)
        return 2
    become_subreaper()
    machine = {**notes(names), "rounds": settings.rounds, "seconds": settings.seconds, "quick": settings.quick}
    cells = run_all(works, names, settings, tell)
    machine["load_at_end"] = [round(load, 2) for load in os.getloadavg()]
    text = report.markdown(works, cells, machine)
    print(text)
    if not (options.quick or options.no_save):
        partial = "-partial" if options.workloads or options.peers else ""
        name = f"{machine['date'][:10]}-{machine['commit'].rstrip('+')}{partial}"
        for path in report.write(options.out, name, text, cells, machine):
            print(f"wrote {path}", file=sys.stderr)
    failed = [cell for cell in cells if cell.status == "failed" and cell.peer in (report.FLOOR, report.SUBJECT)]
    return 1 if failed else 0


def _epilog() -> str:
    return f"workloads: {', '.join(workloads.NAMES)}\npeers: {', '.join(peers.NAMES)}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
