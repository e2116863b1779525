"""The command line: verbs over the Python surface. The only place that prints and that reads the environment.

Exit codes:
    0    done
    1    the work failed: no or damaged checkpoint, broken data, a loss that is not finite
    2    bad usage or settings
    130  stopped by Ctrl-C; a training run has saved its state

Torch is imported by the verbs and not here, so that ``--help`` answers at once.
"""

__all__ = ["main"]


def main() -> None:
    """Run the command line. Ctrl-C while it is still being loaded ends it as quietly as later."""
    try:
        from transfusion.cli.app import main as begun
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    begun()
