"""The command line `feast-embeddings COMMAND`. Each command is one call into the library."""

from __future__ import annotations

import importlib
import os
import sys
from importlib.metadata import entry_points

import click

from feast_embeddings._feast.start import skip_type_checks
from feast_embeddings.errors import EmbeddingsError

__all__ = ["main", "run"]

# Command -> module that defines it (and the function there, if it has another name), in the order in which a new user
# meets them. Modules load on demand, so that --help does not wait for Feast.
_COMMANDS = {
    "quickstart": "feast_embeddings.cli.quickstart",
    "init": "feast_embeddings.cli.init",
    "profile": "",  # comes with the trainers, by entry point, as do the next four
    "train": "",
    "evaluate": "",
    "compare": "",
    "import": "",
    "refresh": "feast_embeddings.cli.refresh",
    "publish": "feast_embeddings.cli.versions",
    "versions": "feast_embeddings.cli.versions",
    "diff": "feast_embeddings.cli.diff",
    "rollback": "feast_embeddings.cli.versions",
    "prune": "feast_embeddings.cli.versions",
    "similar-items": "feast_embeddings.cli.asking.query",
    "similar-users": "feast_embeddings.cli.asking.query",
    "rank": "feast_embeddings.cli.asking.query",
    "visitor": "feast_embeddings.cli.asking.audience",
    "users-for-item": "feast_embeddings.cli.asking.audience",
    "audience": "feast_embeddings.cli.asking.audience",
    "list": "feast_embeddings.cli.asking.audience:list_members",
    "user-embedding": "feast_embeddings.cli.asking.query",
    "item-embedding": "feast_embeddings.cli.asking.query",
    "inspect": "feast_embeddings.cli.analysis.inspect",
    "segments": "feast_embeddings.cli.analysis.segments",
    "map": "feast_embeddings.cli.analysis.map",
    "explain": "feast_embeddings.cli.analysis.explain",
    "export": "feast_embeddings.cli.asking.export",
    "training-frame": "feast_embeddings.cli.frame",
    "fold-in": "feast_embeddings.cli.fold_in",
    "events": "feast_embeddings.cli.events",
    "serve": "feast_embeddings.cli.serve",
    "api-key": "feast_embeddings.cli.serve",
    "doctor": "feast_embeddings.cli.doctor",
    "plan": "feast_embeddings.cli.plan",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        others = (point.name for point in entry_points(group="feast_embeddings.commands"))
        return [*_COMMANDS, *sorted(set(others) - set(_COMMANDS))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if module := _COMMANDS.get(cmd_name):
            module, _, name = module.partition(":")
            command = getattr(importlib.import_module(module), name or cmd_name.replace("-", "_"))
        else:
            found = entry_points(group="feast_embeddings.commands", name=cmd_name)
            command = next((point.load() for point in found), None)
        return command if isinstance(command, click.Command) else None


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
@click.version_option(package_name="feast-embeddings")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Train user and item embeddings, serve them through Feast, query them in Qdrant.

    Start with `feast-embeddings quickstart`, which runs every step on a generated shop. Set
    FEAST_EMBEDDINGS_TRACEBACK=1 to see where an error came from.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def run() -> None:
    """Entry point: exit code 0, 2 for bad input, 1 for a failure; errors are one line on standard error."""
    skip_type_checks()  # the commands make no objects of users' definitions; `feast apply` still checks
    try:
        main.main(standalone_mode=False)
    except EmbeddingsError as error:
        _fail(error, str(error), error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except click.ClickException as error:
        _fail(error, error.format_message(), error.exit_code)
    except BrokenPipeError:
        # The reader (`| head`) has enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Exception as error:
        _fail(error, f"{type(error).__name__}: {error}", 1)


def _fail(error: Exception, message: str, code: int) -> None:
    if os.environ.get("FEAST_EMBEDDINGS_TRACEBACK"):
        raise error
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(code)
