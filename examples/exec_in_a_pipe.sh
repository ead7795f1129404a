#!/bin/sh
# What the last command of a pipe writes becomes records, and its status the pipe's.
# sh exec_in_a_pipe.sh DIRECTORY
set -eu
find "${1:-.}" -type f | logengine exec -s inventory -- sort
