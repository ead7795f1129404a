"""Sending logs: what an application uses. `docs/clients.md` tells how."""
