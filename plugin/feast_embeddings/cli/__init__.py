"""The command line `feast-embeddings COMMAND`. Each command is one call into the library."""

from __future__ import annotations

import os
import sys

import click

from feast_embeddings._feast.start import skip_type_checks
from feast_embeddings.cli.commands import Commands
from feast_embeddings.errors import EmbeddingsError

__all__ = ["main", "run"]


@click.group(
    cls=Commands,
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
