"""What changes stored segments later, and what checks them.

    compaction_plan, compaction    small segments become one; large ones are compressed and sealed
    retention_plan, retention      the oldest segments are removed
    repair_plan, repair            damaged and missing segments are replaced
    erase_plan, erase              single records are overwritten
    verify                         reads everything, changes nothing

`X_plan` decides and does no I/O; `X` carries it out. Whatever it does, a reader finds each record
once at every moment: what takes the place of segments is durable, under a name that covers them,
before any of them is removed.
"""
