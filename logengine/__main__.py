"""`python -m logengine` is `logengine`."""

from logengine.cli import main

if __name__ == "__main__":
    main()
