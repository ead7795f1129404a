"""`logengine keygen`"""

from pathlib import Path

import click


@click.command(
    epilog="""\b
Examples:
  logengine keygen /etc/logengine/seal.key > seal.pub
  logengine verify --public-key seal.pub
"""
)
@click.argument("file", type=click.Path(path_type=Path))
def command(file: Path) -> None:
    """Write a new key that signs seals to FILE, and print its public key.

    Never overwrites an existing FILE. Name FILE in the configuration, as [compaction] seal_key.
    Keep the public key elsewhere, for `verify --public-key`.
    """
    from logengine.upkeep.signing import generate_key

    click.echo(generate_key(file), nl=False)
