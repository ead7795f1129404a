"""`logengine config check` and `logengine config show`"""

import os
from pathlib import Path

import click

from logengine.cli.options import config_option, data_option, socket_option
from logengine.config import SYSTEM_CONFIG, load_config, read_config, render_config


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
@click.argument("file", required=False, type=click.Path(path_type=Path, dir_okay=False))
def check(file: Path | None) -> None:
    """Say whether FILE is right (default: /etc/logengine/logengine.toml)."""
    path = file or SYSTEM_CONFIG
    read_config(path)
    click.echo(f"{path}: ok")


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
    """Print what `logengine run` with the same options would use."""
    config = load_config(config_path, data=data, socket=socket, environ=os.environ, uid=os.getuid())
    click.echo(f"# {config_path or 'defaults, and the command line'}")
    click.echo(render_config(config), nl=False)
