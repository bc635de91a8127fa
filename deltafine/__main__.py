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


if __name__ == "__main__":
    main()
