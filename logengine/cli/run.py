"""`logengine run`"""

import os
from pathlib import Path

import click

from logengine.cli.options import config_option, data_option, socket_option


@click.command(
    epilog="""\b
Signals:
  SIGTERM, SIGINT    stop: everything received is committed first
  SIGHUP             stop, if the daemon's terminal closed; otherwise read the
                     certificates of TLS again
  SIGUSR1, SIGUSR2   ignored

\b
Examples:
  logengine run --data ./data --socket ./socket
  logengine run --config /etc/logengine/logengine.toml
"""
)
@config_option
@data_option
@socket_option
def command(config_path: Path | None, data: Path | None, socket: Path | None) -> None:
    """Run the daemon in the foreground, until SIGTERM or Ctrl-C.

    --data overrides `data` in the file. --socket adds a listener to those in the file; if the file
    has none, it is the only one.
    """
    from logengine.daemon.config import load_config
    from logengine.daemon.daemon import run_daemon
    from logengine.daemon.daemon_log import daemon_log

    config = load_config(config_path, data=data, socket=socket, environ=os.environ, uid=os.getuid())
    with daemon_log(config.log):
        run_daemon(config, os.environ)
