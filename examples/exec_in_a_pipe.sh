#!/bin/sh
# The output of a pipe's last command becomes records, and its status becomes the pipe's.
# sh exec_in_a_pipe.sh DIRECTORY
set -eu
find "${1:-.}" -type f | logengine exec -s inventory -- sort
