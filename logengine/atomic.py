"""The name that programs have imported `is_temp_name` by; `logengine` has both names itself."""

from logengine.disk.atomic import AtomicWriter, is_temp_name

__all__ = ["AtomicWriter", "is_temp_name"]
