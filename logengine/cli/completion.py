"""`logengine completion`"""

import click
from click.shell_completion import get_completion_class

from logengine.cli.shell_completion import VARIABLE, register

_SHELLS = ("bash", "zsh", "fish")


@click.command(
    epilog="""\b
Examples:
  eval "$(logengine completion bash)"        # in ~/.bashrc
  eval "$(logengine completion zsh)"         # in ~/.zshrc, after compinit
  logengine completion fish >~/.config/fish/completions/logengine.fish
"""
)
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the script with which SHELL completes logengine's commands.

    Completes commands, options, streams and, in --where, fields and their values. Values are those
    of the newest records.
    """
    register()
    completion_class = get_completion_class(shell)
    assert completion_class is not None
    click.echo(completion_class(ctx.find_root().command, {}, "logengine", VARIABLE).source())
