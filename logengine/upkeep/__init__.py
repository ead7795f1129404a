"""What changes stored segments later: compaction, retention, repair, erasure; and what checks them.

For each a pure decision (`compaction`, `retention`, `repair_plan`, `erasure`) and a part that
carries it out.
"""
