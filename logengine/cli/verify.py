"""`logengine verify`"""

import re
import sys
from pathlib import Path

import click

from logengine.cli.options import data_option, resolve_data, streams_argument
from logengine.cli.output import escape
from logengine.disk.segment_file import size_of_segments
from logengine.format.seal_chain import SealChain
from logengine.reading import stream_names
from logengine.upkeep.verify import Finding, verify_stream


@click.command(
    epilog="""\b
Examples:
  logengine verify
  logengine verify app audit && echo sound
  logengine verify audit --since-seal 1f3a… --public-key seal.pub
  logengine verify audit --public-key seal.pub --allow-erased
"""
)
@streams_argument
@click.option(
    "--since-seal",
    "anchor",
    metavar="HASH",
    help="A seal hash of the one STREAM that you noted elsewhere: fails if anything up to that "
    "seal has changed.",
)
@click.option(
    "--public-key",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Require at least one seal, and every seal to be signed with the private key of this "
    "public key.",
)
@click.option(
    "--allow-erased",
    is_flag=True,
    help="With --public-key or --since-seal: allow seals with erased records that are not signed. "
    "Nothing proves what is left in them.",
)
@click.option(
    "--allow-gaps",
    is_flag=True,
    help="With --public-key or --since-seal: allow recorded gaps. Nothing proves why those records "
    "are gone.",
)
@data_option
@click.pass_context
def command(
    ctx: click.Context,
    streams: tuple[str, ...],
    anchor: str | None,
    public_key: Path | None,
    allow_erased: bool,  # noqa: FBT001 - click passes by name
    allow_gaps: bool,  # noqa: FBT001
    data: Path | None,
) -> None:
    """Read and check every byte of the streams. Exit 1 if anything is wrong.

    Checks hashes, sequence numbers, JSON and the chain of seals, and names each file that differs
    from what was committed. Prints the newest seal: note it elsewhere, for --since-seal later.
    With --public-key or --since-seal, what these do not prove is wrong; only the records that are
    not sealed yet are printed as a note. Works while the daemon runs.
    """
    data = resolve_data(data)
    names = stream_names(*streams, data=data)
    if anchor is not None and not re.fullmatch("[0-9a-f]{64}", anchor):
        raise click.BadParameter(
            f"{anchor!r}; expected 64 hexadecimal digits, as `logengine verify` prints them",
            param_hint="--since-seal",
        )
    if anchor is not None and len(names) != 1:
        raise click.UsageError("--since-seal is a seal of one stream; name that stream as STREAM")
    if (allow_erased or allow_gaps) and public_key is None and anchor is None:
        raise click.UsageError(
            "--allow-erased and --allow-gaps are for --public-key and --since-seal"
        )
    is_signed = None
    if public_key is not None:
        from logengine.upkeep.signing import load_verifier

        is_signed = load_verifier(public_key)
    chains = {
        stream: SealChain(anchor, is_signed, allows_erased=allow_erased, allows_gaps=allow_gaps)
        for stream in names
    }
    found: list[tuple[str, list[Finding]]] = []
    with click.progressbar(
        length=sum(size_of_segments(data / stream) for stream in names),
        label="verify",
        file=sys.stderr,
        hidden=not sys.stderr.isatty(),
    ) as bar:
        found.extend(
            (stream, list(verify_stream(data / stream, bar.update, chains[stream])))
            for stream in names
        )
    sound = True
    for stream, findings in found:
        for finding in findings:
            prefix = "note: " if finding.harmless else ""
            click.echo(escape(f"{prefix}{finding}"), err=finding.harmless)
        if all(finding.harmless for finding in findings):
            seal = chains[stream].newest_hash
            sealed = f", sealed up to {chains[stream].sealed_to} by {seal}" if seal else ""
            unsigned = chains[stream].signed_no_more
            erased = f"; not signed: {unsigned} with erased records" if unsigned else ""
            click.echo(f"{stream}: ok{sealed}{erased}")
        else:
            sound = False
    ctx.exit(0 if sound else 1)
