#!/bin/sh
# Sends records from a shell without logengine, with socat. The last answer says
# how many are on disk. Without the hello, the daemon sends no answers and plain lines suffice.
# -t: how many seconds socat waits for the daemon to close the connection, which it does once
# everything is on disk.
set -eu
: "${LOGENGINE_SOCKET:=/run/logengine/socket}"

last_answer=$(
    {
        echo '{"_hello":1,"stream":"backup"}'
        echo '{"level":"info","event":"started"}'
        echo 'plain text is a record, too'
    } | socat -t 60 - "UNIX-CONNECT:$LOGENGINE_SOCKET" | tail -n 1
)
if [ "$last_answer" != '{"ack":2}' ]; then
    echo "not on disk: $last_answer" >&2
    exit 1
fi
