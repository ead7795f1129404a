"""Bytes on disk, as `docs/format.md` has them: bytes in, values out. No I/O, no clock."""
