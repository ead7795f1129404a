"""Records to send: of one size, realistic, and all different within a sample."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass

RECORD_BYTES = 256
_BLOCK_BYTES = 64 * 1024
_WORD_BYTES = 8


@dataclass(frozen=True)
class Sample:
    """Blocks of records of `record_bytes` each, newline included; sent repeatedly."""

    record_bytes: int
    blocks: Sequence[bytes]

    @property
    def per_block(self) -> int:
        """How many records a block contains."""
        return len(self.blocks[0]) // self.record_bytes

    @property
    def record(self) -> bytes:
        """One of them."""
        return self.blocks[0][: self.record_bytes]


def real_looking(record_bytes: int = RECORD_BYTES, blocks: int = 256) -> Sample:
    """NDJSON lines with random ids and words, in blocks of 64 KiB; from 64 bytes on.

    All blocks together are 16 MiB, more than a batch, so no compressor finds the same
    records twice in one batch.
    """
    source = random.Random(1)
    words = [source.randbytes(_WORD_BYTES // 2).hex() for _ in range(500)]
    per_block = _BLOCK_BYTES // record_bytes
    return Sample(
        record_bytes,
        [
            b"".join(_record(source, words, record_bytes) for _ in range(per_block))
            for _ in range(blocks)
        ],
    )


def _record(source: random.Random, words: list[str], record_bytes: int) -> bytes:
    record: dict[str, object] = {"id": source.randbytes(12).hex()}
    if record_bytes >= RECORD_BYTES:
        record |= {
            "level": source.choice(["debug", "info", "warning"]),
            "event": "request handled",
            "path": f"/api/{source.choice(words)}",
        }
    record |= {"ms": round(source.random() * 100, 3), "text": ""}
    room = record_bytes - 1 - len(_encoded(record))
    record["text"] = " ".join(source.choices(words, k=room // _WORD_BYTES + 1))[:room]
    return _encoded(record) + b"\n"


def _encoded(record: dict[str, object]) -> bytes:
    return json.dumps(record, separators=(",", ":")).encode()
