"""Blocking primitives of what is durable: files replaced as a whole, directories, marks, the lock.

Nothing here knows asyncio. What raises `OSError` names the file.
"""
