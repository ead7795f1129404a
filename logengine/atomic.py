"""Kept for programs that import `is_temp_name` from here; `logengine` exports both names."""

from logengine.disk.atomic import AtomicWriter, is_temp_name

__all__ = ["AtomicWriter", "is_temp_name"]
