"""What many records have in common: how many there are of which kind, their fields, patterns.

    counting          records by values of fields and by time
    field_survey      the fields that records have, with types and examples
    message_patterns  messages that differ only in their variable parts, as one pattern

Blocks of records in, numbers out; no I/O. The memory that each takes is bounded, whatever the
records are: what comes after a limit is counted together as others.
"""
