"""The command ``deltafine``, and ``python -m deltafine``: nothing is loaded before Ctrl-C is understood."""

import sys


def main() -> None:
    """Run the command line; see :func:`deltafine.cli.main`."""
    try:
        from deltafine.cli import main as command

        command()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
    finally:
        # CPython notes that an interrupt has left code that was given as text (such as that of a dataclass) even where
        # it is caught, and then ends by the signal and not with the exit code; more such code makes it forget that.
        exec("")


if __name__ == "__main__":
    main()
