"""What an acknowledgement rests on: pending records, batches, plans, commits, recovery.

`committer` decides when, `plan` what, `store` and `publication` do it. A plan is published only on
the state that it was made on.
"""
