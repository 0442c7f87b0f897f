"""`zmreg job`: programs that a node of the cluster runs; and `zmreg run`: one that runs here, in the cluster."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from zmreg.tools.cli.calling import seat, split, wrong_wishes
from zmreg.tools.cli.common import AS_JSON, say_json, table, usage_errors, which_cluster

if TYPE_CHECKING:
    from zmreg.flows.jobs.client import JobClient
    from zmreg.flows.jobs.infos import JobInfo

# Options end where the command begins: what follows is its own.
_COMMAND: Final = {"ignore_unknown_options": True, "allow_interspersed_args": False}
_INTERRUPTED: Final = 130


def _client() -> JobClient:
    import zmreg

    return zmreg.JobClient()


@click.group()
def job() -> None:
    """Have programs run by the cluster, and look after them from anywhere.

    A job goes on when whoever has submitted it is gone. Its id is the name given to it, or one that is made up.
    Submitting takes what every program of the cluster has: its key, or a node of one's own on this machine.

    Example: zmreg job submit --working-dir . -- python train.py --epochs 3
    """


def _pairs(_: click.Context, option: click.Parameter, texts: tuple[str, ...]) -> dict[str, str]:
    """`K=V` of each."""
    for text in texts:
        if "=" not in text or text.startswith("="):
            raise click.BadParameter(f"{text!r} is not NAME=VALUE", param=option)
    return dict(text.split("=", 1) for text in texts)


def _placed(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say where a job runs, and what it takes there."""
    for option in (
        click.option("--resources", metavar="NAME=AMOUNT", multiple=True, callback=_pairs, help="Taken as it runs."),
        click.option("--num-gpus", type=click.FloatRange(min=0), metavar="N", help="GPUs taken as long as it runs."),
        click.option("--num-cpus", type=click.FloatRange(min=0), metavar="N", help="CPUs taken as long as it runs."),
        click.option("--locs", metavar="A,B", default="", help="Only where all of these are."),
        click.option("--node", metavar="NODE", help="The node's id or name; by default where the head is."),
    ):
        command = option(command)
    return command


@job.command(context_settings=_COMMAND)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--name", metavar="ID", help="The job's id; by default one is made up.")
@click.option("--working-dir", metavar="DIR", help="Its content is sent along; the command begins in a copy of it.")
@click.option("--exclude", "excludes", metavar="PATTERN", multiple=True, help="Of that what is not sent.")
@click.option("--env", "variables", metavar="K=V", multiple=True, callback=_pairs, help="A variable for the command.")
@click.option("--metadata", metavar="K=V", multiple=True, callback=_pairs, help="Kept with the job, for you.")
@click.option("--no-wait", is_flag=True, help="Print the id, and do not wait for its end.")
@_placed
@which_cluster
def submit(command: tuple[str, ...], no_wait: bool, address: str | None, key: str | None, **how: Any) -> int:
    """Run a COMMAND on a node of the cluster, show what it prints, and exit as it does.

    It is no line for a shell: that is `-- sh -c 'a | b'`. In Python programs `zmreg.init()` finds the cluster. When
    you stop waiting (Ctrl-C), the job goes on.

    Example: zmreg job submit --env SEED=1 --num-cpus 1 -- python train.py
    """
    env = {"env_vars": how["variables"], "working_dir": how["working_dir"], "excludes": how["excludes"]}
    wishes = {name: how[name] for name in ("num_cpus", "num_gpus", "node") if how[name] is not None}
    wishes |= {"locs": set(split(how["locs"]))} if how["locs"] else {}
    with seat(address, key), wrong_wishes():
        if how["resources"]:
            wishes["resources"] = {name: float(amount) for name, amount in how["resources"].items()}
        jobs = _client()
        job_id = jobs.submit_job(
            list(command), submission_id=how["name"], runtime_env=env, metadata=how["metadata"], **wishes
        )
        if no_wait:
            click.echo(job_id)
            return 0
        click.echo(f"zmreg: job {job_id}; `zmreg job stop {job_id}` ends it", err=True)
        return _await(jobs, job_id)


def _await(jobs: JobClient, job_id: str) -> int:
    """Show what it prints until its end; its exit code, as shells count."""
    try:
        for text in jobs.tail_job_logs(job_id):
            sys.stdout.write(text)
            sys.stdout.flush()
        info = jobs.wait_job(job_id)
    except KeyboardInterrupt:
        click.echo(f"zmreg: job {job_id} goes on; `zmreg job logs -f {job_id}` shows it again", err=True)
        return _INTERRUPTED
    click.echo(f"zmreg: job {job_id} {info.status}{': ' if info.message else ''}{info.message}", err=True)
    code = info.exit_code
    if code is None or (code == 0 and info.status != "SUCCEEDED"):
        return 1
    return code if code >= 0 else 128 - code


@job.command("list")
@which_cluster
@AS_JSON
def list_(address: str | None, key: str | None, as_json: bool) -> None:
    """Show all jobs that are known, the oldest first; a thousand are kept after their end.

    Example: zmreg job list
    """
    with seat(address, key):
        found = _client().list_jobs()
    if as_json:
        say_json([_document(each) for each in found])
        return
    rows = [
        {
            "ID": each.job_id, "Status": str(each.status), "Exit": each.exit_code, "Node": each.node_id[:8],
            "Submitted": _clock(each.submitted), "Took": _took(each), "Command": _cut(each.entrypoint),
        }
        for each in found
    ]  # fmt: skip
    click.echo(table(rows, ("ID", "Status", "Exit", "Node", "Submitted", "Took", "Command")))


@job.command()
@click.argument("job_id", metavar="ID")
@which_cluster
@AS_JSON
def status(job_id: str, address: str | None, key: str | None, as_json: bool) -> None:
    """Show how a job stands.

    Example: zmreg job status job-0123456789ab
    """
    with seat(address, key), wrong_wishes():
        info = _client().get_job_info(job_id)
    if as_json:
        say_json(_document(info))
        return
    click.echo(f"{info.job_id} {info.status}{': ' if info.message else ''}{info.message}\n  $ {info.entrypoint}")
    for name, value in info.metadata.items():
        click.echo(f"  {name}: {value}")


@job.command()
@click.argument("job_id", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is printed later, until it is over or Ctrl-C.")
@which_cluster
def logs(job_id: str, follow: bool, address: str | None, key: str | None) -> None:
    """Print what a job has printed, while it runs or later, from any machine of the cluster.

    Of much the last 4 to 8 MiB are kept at its node, and the last 16 KiB beyond that node's life.

    Example: zmreg job logs -f job-0123456789ab
    """
    with seat(address, key), wrong_wishes():
        jobs = _client()
        for text in jobs.tail_job_logs(job_id) if follow else [jobs.get_job_logs(job_id)]:
            sys.stdout.write(text)
            sys.stdout.flush()


@job.command()
@click.argument("job_id", metavar="ID")
@click.option("--grace", type=click.FloatRange(min=0), default=5.0, show_default=True, metavar="SECONDS",
              help="From SIGTERM to SIGKILL.")  # fmt: skip
@click.option("--no-wait", is_flag=True, help="Do not wait for its end.")
@which_cluster
def stop(job_id: str, grace: float, no_wait: bool, address: str | None, key: str | None) -> None:
    """End a job: SIGTERM to its processes, and SIGKILL to what is left of them after the grace.

    Example: zmreg job stop job-0123456789ab
    """
    with seat(address, key), wrong_wishes():
        jobs = _client()
        if not jobs.stop_job(job_id, grace):
            click.echo(f"{job_id} was over: {jobs.get_job_status(job_id)}")
        elif no_wait:
            click.echo(f"{job_id} has been told to end")
        else:
            click.echo(f"{job_id} {jobs.wait_job(job_id).status}")


def _document(info: JobInfo) -> Mapping[str, Any]:
    return {name: getattr(info, name) for name in type(info).__match_args__}


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _cut(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _took(info: JobInfo) -> str:
    if not info.started:
        return ""
    return f"{(info.ended or time.time()) - info.started:.1f} s"


# -- run ---------------------------------------------------------------------------------------------------------------


@click.command(context_settings=_COMMAND)
@click.argument("script")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@which_cluster
def run(script: str, arguments: tuple[str, ...], address: str | None, key: str | None) -> None:
    """Run a Python SCRIPT here, as a program of the cluster: `zmreg.init()` in it takes a seat there.

    The process becomes the script: it has this terminal, and its exit code is the script's. For a program that goes on
    without you there is `zmreg job submit`.

    Example: zmreg run --address 10.0.0.5:7550 train.py --epochs 3
    """
    from zmreg.model.errors import ClusterError
    from zmreg.services.setup.finding import find

    if not Path(script).is_file():
        raise click.UsageError(f"there is no script {script}")
    with usage_errors():
        if find(address, key) is None:
            raise ClusterError("no cluster of yours runs on this machine: say --address, or run it with python alone")
    if address is not None:
        os.environ["ZMREG_ADDRESS"] = address
    if key is not None:
        os.environ["ZMREG_KEY"] = str(Path(key).absolute())
    sys.stdout.flush()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.execv(sys.executable, [sys.executable, script, *arguments])
