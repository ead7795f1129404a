"""`is_temp_name` where programs have imported it from so far; `logengine` itself has it too."""

from logengine.disk.atomic import AtomicWriter, is_temp_name

__all__ = ["AtomicWriter", "is_temp_name"]
