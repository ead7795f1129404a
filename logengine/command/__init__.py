"""`logengine exec`: a command as a child process, and its output as records."""
