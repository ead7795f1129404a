"""What a command says to people: one line each, escaped, since names may be anyone's choice."""

import click

from logengine.printable import escape


def say(text: str) -> None:
    """Prints a line of the command's result to standard output."""
    click.echo(escape(text))


def note(text: str) -> None:
    """Prints a line to standard error that is not about a failure."""
    click.echo(f"note: {escape(text)}", err=True)


def tell(text: str) -> None:
    """Prints a line to standard error, about a failure or what the command waits for."""
    click.echo(f"logengine: {escape(text)}", err=True)
