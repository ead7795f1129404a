"""`logengine top`: a live screen of streams, senders and records. `docs/top.md` describes it.

What is shown is computed without a screen: `figures` makes rates and counts of what was looked at,
`columns` makes a table of them, `window` is the part of the records that is on the screen and holds
still while somebody reads it. `survey` looks at the data directory and asks the daemon; `source`
reads records, follows and searches, in threads. `app` is the screen (textual), made of `screens`,
`tables`, `record_list`, `text_view` and `prompt`.

Everything from a record or a name is escaped before it is drawn, and is never parsed as markup.
"""
