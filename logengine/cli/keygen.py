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
    """Make a key that signs seals, in FILE, and print the public one.

    Name FILE in the configuration, as [compaction] seal_key. A FILE that is there is never
    overwritten. Keep the public key elsewhere: `verify --public-key` takes it.
    """
    from logengine.upkeep.signing import generate_key

    click.echo(generate_key(file), nl=False)
