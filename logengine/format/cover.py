"""How many segments a merge covers, and how far back one looks for the segment that covers others.

A compaction that was cut short leaves the segments that its result covers. Readers look back from
a segment for the one that covers it, and recovery looks at the newest segments only. Both must
find the result of the longest merge.
"""

# Neighbours that become one segment, at most.
MERGED_SEGMENTS_MAX = 62
# Segments that are looked at for one that covers others, at most.
COVER_SEGMENTS_MAX = 64

# All that a merge covers, and the two newest: the active segment, and one that ended meanwhile.
assert MERGED_SEGMENTS_MAX + 2 <= COVER_SEGMENTS_MAX
