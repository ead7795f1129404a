"""Records to send: of one size, and no two alike."""

import json
import random

RECORD_BYTES = 256
RECORDS_PER_BLOCK = 256


def real_looking_blocks(count: int) -> list[bytes]:
    """Blocks of NDJSON lines of 256 bytes each, newline included, with random ids and words."""
    source = random.Random(1)
    words = [source.randbytes(4).hex() for _ in range(500)]
    return [
        b"".join(_record(source, words) for _ in range(RECORDS_PER_BLOCK)) for _ in range(count)
    ]


def _record(source: random.Random, words: list[str]) -> bytes:
    record = {
        "level": source.choice(["debug", "info", "warning"]),
        "event": "request handled",
        "id": source.randbytes(12).hex(),
        "path": f"/api/{source.choice(words)}",
        "ms": round(source.random() * 100, 3),
        "text": "",
    }
    room = RECORD_BYTES - 1 - len(json.dumps(record, separators=(",", ":")))
    record["text"] = " ".join(source.choices(words, k=30))[:room]
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"
