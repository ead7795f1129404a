"""`logengine config check` and `logengine config show`"""

import os
from pathlib import Path

import click

from logengine.cli.messages import say
from logengine.cli.options import config_option, data_option, socket_option
from logengine.daemon.config import SYSTEM_CONFIG, load_config, read_config, render_config


@click.group(name="config")
def command() -> None:
    """Check and show the configuration."""


@command.command(
    epilog="""\b
Examples:
  logengine config check
  logengine config check ./logengine.toml
"""
)
@click.argument("file", required=False, type=click.Path(path_type=Path))
def check(file: Path | None) -> None:
    """Check the configuration in FILE.

    Default: /etc/logengine/logengine.toml, or the built-in defaults if that does not exist.
    """
    if file is None and not SYSTEM_CONFIG.exists():
        load_config(None, data=None, socket=None, environ=os.environ, uid=os.getuid())
        click.echo("built-in defaults: ok")
        return
    path = file or SYSTEM_CONFIG
    read_config(path)
    say(f"{path}: ok")


@command.command(
    epilog="""\b
Examples:
  logengine config show
  logengine config show --config /etc/logengine/logengine.toml
"""
)
@config_option
@data_option
@socket_option
def show(config_path: Path | None, data: Path | None, socket: Path | None) -> None:
    """Print the configuration that `logengine run` would use with the same options."""
    config = load_config(config_path, data=data, socket=socket, environ=os.environ, uid=os.getuid())
    options = [name for name, given in (("--data", data), ("--socket", socket)) if given]
    said = [str(config_path)] if config_path else []
    say(f"# From {', '.join((*said, *options, 'defaults'))}")
    click.echo(render_config(config), nl=False)
