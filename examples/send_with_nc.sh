#!/bin/sh
# Records from a shell that has no logengine, with nc of netcat-openbsd. The last answer says
# how many are on disk; without the hello there are no answers, and lines alone will do.
set -eu
: "${LOGENGINE_SOCKET:=/run/logengine/socket}"

last_answer=$(
    {
        echo '{"_hello":1,"stream":"backup"}'
        echo '{"level":"info","event":"started"}'
        echo 'plain text is a record, too'
    } | nc -NU "$LOGENGINE_SOCKET" | tail -n 1
)
if [ "$last_answer" != '{"ack":2}' ]; then
    echo "not on disk: $last_answer" >&2
    exit 1
fi
