"""Python's collector of garbage, for a process that traces many programs."""

import atexit
import gc

SELDOM = (50_000, 20, 50)
"""Objects, and rounds of younger ones, after which Python looks for garbage; by default some hundred objects."""


def collect_seldom() -> None:
    """Look for garbage seldom, at the end not at all, and never among what is there now: packages, collected tests.

    JAX makes millions of objects when it traces and lowers a program, and most are freed without the collector. Looking
    for the others took a fifth of the time of claims whose programs are kept, and 6% of all claims where none is. At
    the end of a process, it took a second and more.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*SELDOM)
    atexit.register(gc.freeze)
