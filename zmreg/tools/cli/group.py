"""The command group: finds commands late, so that `zmreg --help` starts fast, and turns errors into exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final, NoReturn

import click

from zmreg.model.errors import AuthenticationError, ClusterError, StateLockedError, ZmregError

EXIT_FAILED: Final = 1
EXIT_UNSAFE: Final = 2  # as click's own for wrong usage
EXIT_LOCKED: Final = 3
EXIT_UNREACHABLE: Final = 4
EXIT_AUTHENTICATION: Final = 5
EXIT_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells count

# Command -> the module that defines it under its name, or that with a `_`. Modules keep imports beyond click inside the
# commands.
COMMANDS: Final = {
    "call": "zmreg.tools.cli.calling",
    "clusters": "zmreg.tools.cli.running",
    "config": "zmreg.tools.cli.config",
    "dashboard": "zmreg.tools.cli.dashboard",
    "debug": "zmreg.tools.cli.debugging",
    "demo": "zmreg.tools.cli.demo",
    "describe": "zmreg.tools.cli.calling",
    "doctor": "zmreg.tools.cli.doctor",
    "drain": "zmreg.tools.cli.drain",
    "dump": "zmreg.tools.cli.dump",
    "functions": "zmreg.tools.cli.calling",
    "health": "zmreg.tools.cli.running",
    "job": "zmreg.tools.cli.jobs",
    "key": "zmreg.tools.cli.keys",
    "list": "zmreg.tools.cli.state",
    "logs": "zmreg.tools.cli.logs",
    "memory": "zmreg.tools.cli.looking",
    "metrics": "zmreg.tools.cli.metrics",
    "nodes": "zmreg.tools.cli.state",
    "request": "zmreg.tools.cli.requesting",
    "run": "zmreg.tools.cli.jobs",
    "runs": "zmreg.tools.cli.runs",
    "stack": "zmreg.tools.cli.looking",
    "start": "zmreg.tools.cli.start",
    "status": "zmreg.tools.cli.state",
    "stop": "zmreg.tools.cli.running",
    "summary": "zmreg.tools.cli.afterwards",
    "timeline": "zmreg.tools.cli.afterwards",
    "version": "zmreg.tools.cli.about",
    "watch": "zmreg.tools.cli.runs",
    "why": "zmreg.tools.cli.afterwards",
}


class CommandGroup(click.Group):
    """A click group whose commands are imported when asked for and whose errors are one line on stderr."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names, sorted, without importing anything."""
        return sorted({*super().list_commands(ctx), *COMMANDS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, or None when there is no such name (click then says so)."""
        if cmd_name in COMMANDS:
            module = import_module(COMMANDS[cmd_name])
            found: click.Command = getattr(module, f"{cmd_name}_", None) or getattr(module, cmd_name)
            return found
        return super().get_command(ctx, cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's. UsageError with the nearest name for a command that there is not."""
        name, known = args[0], self.list_commands(ctx)
        if name not in known and not name.startswith("-") and not ctx.resilient_parsing:
            import difflib  # late: only a misspelt name needs it

            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else "`zmreg --help` shows all"
            raise click.UsageError(f"No such command {name!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """As click's, but with zmreg's exit codes. With `standalone_mode=False` everything is raised as it is."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, **extra)
        try:
            outcome = super().main(args, prog_name, complete_var, False, **extra)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except click.Abort:
            sys.exit(EXIT_INTERRUPTED)
        except (ZmregError, OSError) as error:
            fail(error)
        # click hands back the code of ctx.exit() here, and a command's own return value, which is no exit code.
        sys.exit(outcome if type(outcome) is int else 0)


def fail(error: Exception) -> NoReturn:
    """Say what went wrong, without a traceback, and exit with the code for its kind."""
    if isinstance(error, AuthenticationError):
        # A key file that others may read is no wrong key: by name, since the class is where zmq is.
        code = EXIT_UNSAFE if type(error).__name__ == "UnsafeKeyFileError" else EXIT_AUTHENTICATION
    elif isinstance(error, StateLockedError):
        code = EXIT_LOCKED
    elif isinstance(error, ClusterError):
        code = EXIT_UNREACHABLE
    else:
        code = EXIT_FAILED
    click.echo(f"zmreg: {error}", err=True)
    sys.exit(code)


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.pass_context
def main(ctx: click.Context) -> None:
    """Actors and tasks for Python on ZeroMQ.

    Example: zmreg demo --query "context manager"
    """
    if os.environ.get("NO_COLOR"):
        ctx.color = False
