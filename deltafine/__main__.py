"""The command ``deltafine``, and ``python -m deltafine``: nothing is loaded before Ctrl-C is understood."""

import sys


def main() -> None:
    """Run the command line; see :func:`deltafine.cli.main`."""
    try:
        _take_lost_interrupts_again()
        from deltafine.cli import main as command

        command()
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
    finally:
        # CPython notes that an interrupt has left code that was given as text (such as that of a dataclass) even where
        # it is caught, and then ends by the signal and not with the exit code; more such code makes it forget that.
        exec("")


def _take_lost_interrupts_again() -> None:
    """Let a Ctrl-C come once more that arrived where Python cannot raise it, such as in a callback of an import.

    Else the command would go on, and with the lock of an import held for ever: the first thread that imports waits.
    """
    import signal
    import threading

    usual = sys.unraisablehook

    def hook(lost: "sys.UnraisableHookArgs") -> None:
        if isinstance(lost.exc_value, KeyboardInterrupt) and hasattr(signal, "pthread_kill"):  # not on Windows
            main_thread = threading.main_thread().ident or 0
            # At once, it would arrive in here, and be lost again.
            threading.Timer(0.05, signal.pthread_kill, (main_thread, signal.SIGINT)).start()
        else:
            usual(lost)

    sys.unraisablehook = hook


if __name__ == "__main__":
    main()
