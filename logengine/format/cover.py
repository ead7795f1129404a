"""How many segments a merge may cover, and how far back to search for a covering segment.

An interrupted compaction leaves the segments that its result covers. Readers search backwards from
a segment for the one that covers it, and recovery checks the newest segments only. Both must find
the result of the longest merge.
"""

# At most this many neighbours become one segment.
MERGED_SEGMENTS_MAX = 62
# At most this many segments are checked for one that covers others.
COVER_SEGMENTS_MAX = 64

# Everything a merge covers plus the two newest: the active segment and one that ended meanwhile.
assert MERGED_SEGMENTS_MAX + 2 <= COVER_SEGMENTS_MAX
