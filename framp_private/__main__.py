"""`python -m framp_private` is `framp-private`."""

from framp_private.cli import script

if __name__ == "__main__":
    script()
