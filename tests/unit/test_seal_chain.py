"""What the chain of seals says of a seal of which a repair kept a part."""

import msgspec
from msgspec import UNSET

from logengine.format.seal_chain import SealChain
from logengine.format.segment import (
    Frame,
    Gap,
    Header,
    IndexEntry,
    Restored,
    encode_header,
    header_sha256,
)

TIME = "2026-11-23T20:00:00.000001Z"
SEAL = Header(
    version=1,
    stream="app",
    first=1,
    count=20,
    bytes=2000,
    since=TIME,
    until=TIME,
    latest=TIME,
    sha256="a" * 64,
    frames=(Frame(90, 1000, 10), Frame(91, 1000, 10)),
    index=(IndexEntry(TIME, TIME, "b" * 64), IndexEntry(TIME, TIME, "c" * 64)),
    prev="",
    signature="5" * 128,
)
LINE = encode_header(SEAL)
PART = msgspec.structs.replace(
    SEAL,
    count=10,
    bytes=1000,
    sha256="d" * 64,
    frames=(Frame(90, 1000, 10),),
    index=(IndexEntry(TIME, TIME, "b" * 64),),
    signature=UNSET,
    restored=Restored(when=TIME, why="a test", header=LINE.decode().removesuffix("\n")),
)
TAIL = msgspec.structs.replace(
    SEAL, first=11, count=10, frames=UNSET, index=UNSET, prev=UNSET, signature=UNSET
)
GAP = msgspec.structs.replace(TAIL, count=0, bytes=0, gap=Gap(last=20, when=TIME, why="a test"))
NOT_SEALED = "records 11 to 20 are not those that were sealed, and no gap says so"


def faults(*headers: Header, allows_gaps: bool = False, anchor: str | None = None) -> list[str]:
    """What `verify` with a key that signed everything, or with `anchor`, calls wrong."""
    is_signed = None if anchor else lambda _signed, _signature: True
    chain = SealChain(anchor, is_signed, allows_gaps=allows_gaps)
    remarks = [each for header in headers for each in chain.take(header, encode_header(header))]
    remarks += chain.end()
    return [each.what for each in remarks if not each.is_note]


def test_a_part_of_a_seal_does_not_pass_for_all_of_it() -> None:
    assert faults(PART, TAIL) == [NOT_SEALED]
    assert faults(PART, TAIL, anchor=header_sha256(LINE)) == [NOT_SEALED]
    assert faults(PART) == [NOT_SEALED]


def test_a_part_of_a_seal_is_proven_with_the_gap_that_a_repair_recorded() -> None:
    (gap,) = faults(PART, GAP)
    assert gap.startswith("no seal proves this gap")
    assert faults(PART, GAP, allows_gaps=True) == []
    after = msgspec.structs.replace(SEAL, first=21, prev=header_sha256(LINE))
    assert faults(PART, GAP, after, allows_gaps=True) == []


def test_all_parts_of_a_seal_are_proven() -> None:
    rest = msgspec.structs.replace(
        PART,
        first=11,
        frames=(Frame(91, 1000, 10),),
        index=(IndexEntry(TIME, TIME, "c" * 64),),
    )
    assert faults(PART, rest) == []
