"""The crash rig: what stops the engine at any call, and what must hold afterwards.

`docs/testing.md` has the modules. Tests of every kind use them; the tests that are of the rig alone
are in `tests/crash`.
"""
