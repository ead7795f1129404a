"""The specification of the protocol as a program: `python -m tests.conformance SOCKET`."""
