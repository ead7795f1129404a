"""Later changes to stored segments, and checks of them.

    compaction_plan, compaction    merge small segments; compress and seal large ones
    retention_plan, retention      remove the oldest segments
    repair_plan, repair            replace damaged and missing segments
    erase_plan, erase              overwrite single records
    verify                         reads everything, changes nothing

`X_plan` decides and does no I/O; `X` carries the decision out. At every moment a reader finds each
record exactly once: the replacement of segments is durable, under a name that covers them, before
any of them is removed.
"""
