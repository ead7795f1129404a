"""`logengine verify`"""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

import click

from logengine.cli.messages import note, say
from logengine.cli.options import data_option, resolve_data, streams_argument
from logengine.disk.segment_file import not_streams, size_of_segments
from logengine.format.seal_chain import SealChain
from logengine.format.seal_list import SEAL_HASH_RULE, parse_seal_list
from logengine.reading import stream_names
from logengine.upkeep.verify import Finding, verify_stream


@click.command(
    epilog="""\b
Examples:
  logengine verify
  logengine verify app audit && echo sound
  logengine verify audit --since-seal 1f3a… --public-key seal.pub
  logengine verify audit --public-key seal.pub --allow-erased
  ssh elsewhere cat seals | logengine verify --seals -
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
    "--seals",
    "seal_list",
    type=click.File("r", encoding="utf-8", errors="replace"),
    help="A list of seals that you keep elsewhere, as `logengine seals` prints them: each stream "
    "is checked as with --since-seal. If a stream is listed twice, the last one counts.",
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
    help="With a key or known seals: allow seals with erased records that are not signed. "
    "Nothing proves what is left in them.",
)
@click.option(
    "--allow-gaps",
    is_flag=True,
    help="With a key or known seals: allow recorded gaps. Nothing proves why those records "
    "are gone.",
)
@data_option
@click.pass_context
def command(
    ctx: click.Context,
    streams: tuple[str, ...],
    anchor: str | None,
    seal_list: TextIO | None,
    public_key: Path | None,
    allow_erased: bool,  # noqa: FBT001 - click passes by name
    allow_gaps: bool,  # noqa: FBT001
    data: Path | None,
) -> None:
    """Read and check every byte of the streams. Exit 1 if anything is wrong.

    Checks hashes, sequence numbers, JSON and the chain of seals, and names each file that differs
    from what was committed. Prints the newest seal: note it elsewhere, for --since-seal later.
    With --public-key, --since-seal or --seals, what these do not prove is wrong; only the records
    that are not sealed yet are printed as a note. Works while the daemon runs.
    """
    data = resolve_data(data)
    names = stream_names(*streams, data=data)
    if (allow_erased or allow_gaps) and (public_key, anchor, seal_list) == (None, None, None):
        raise click.UsageError(
            "--allow-erased and --allow-gaps are for --public-key, --since-seal and --seals"
        )
    anchors = _anchors(anchor, seal_list, names)
    is_signed = None
    if public_key is not None:
        from logengine.upkeep.signing import load_verifier

        is_signed = load_verifier(public_key)
    chains = {
        stream: SealChain(
            anchors.get(stream), is_signed, allows_erased=allow_erased, allows_gaps=allow_gaps
        )
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
    strange = {} if streams else not_streams(data)
    for name, what in strange.items():
        say(f"{data / name}: {what}, so nobody reads or writes it")
    gone = [] if streams else sorted(anchors.keys() - names)
    for stream in gone:
        say(f"{data / stream}: it is in the list of seals, but there is no such stream")
    if seal_list is not None:
        for stream in sorted(set(names) - anchors.keys()):
            note(f"{stream} is not in the list of seals")
    are_sound = [_report(findings, stream, chains[stream]) for stream, findings in found]
    ctx.exit(0 if all(are_sound) and not gone and not strange else 1)


def _anchors(
    anchor: str | None, seal_list: TextIO | None, names: Sequence[str]
) -> Mapping[str, str]:
    """Returns the hash that must be in the chain of each stream for which one is known."""
    if seal_list is not None:
        if anchor is not None:
            raise click.UsageError("--since-seal and --seals exclude each other")
        listed = parse_seal_list(seal_list.read(), seal_list.name)
        return {stream: seal.hash for stream, seal in listed.items()}
    if anchor is None:
        return {}
    if not re.fullmatch(SEAL_HASH_RULE, anchor):
        raise click.BadParameter(
            f"{anchor!r}; expected 64 hexadecimal digits, as `logengine verify` prints them",
            param_hint="--since-seal",
        )
    if len(names) != 1:
        raise click.UsageError("--since-seal is a seal of one stream; name that stream as STREAM")
    return {names[0]: anchor}


def _report(findings: Sequence[Finding], stream: str, chain: SealChain) -> bool:
    """Prints the findings about a stream; returns whether all of them are harmless."""
    for finding in findings:
        (note if finding.harmless else say)(str(finding))
    if not all(finding.harmless for finding in findings):
        return False
    seal = chain.newest_hash
    sealed = f", sealed up to {chain.sealed_to} by {seal}" if seal else ""
    unsigned = chain.signed_no_more
    erased = f"; not signed: {unsigned} with erased records" if unsigned else ""
    say(f"{stream}: ok{sealed}{erased}")
    return True
