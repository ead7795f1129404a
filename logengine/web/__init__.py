"""`logengine web`: a read-only page with the records of a data directory.

`query` and `rows` are pure: what a page asks for, and records as it gets them. `access` decides
who may ask. `answers` reads, in threads; `live` follows, in a thread for each page. `app` is the
HTTP of it, by aiohttp, and `server` its life. `page/` is what runs in the browser: one HTML, one
CSS, one JavaScript file, as they are.
"""
