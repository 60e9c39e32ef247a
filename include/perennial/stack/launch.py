"""Runs a module as ``python -m MODULE ARGUMENTS`` does, with a garbage collector that looks less often.

    python -m perennial.stack.launch airflow scheduler

Airflow, MLflow and torch make millions of objects while they are imported, of which hardly any is ever garbage; at Python's own
setting the collector walks them thousands of times, a tenth of the time in which a part of the stack comes up.
"""

from __future__ import annotations

import gc
import runpy
import sys

LAUNCH = "perennial.stack.launch"
# objects made, less those freed, before the youngest are looked at; Python's own setting is 700
YOUNG = 50_000


def main() -> None:
    """Run the module named by the first word; the others are its arguments."""
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
    module = sys.argv[1]
    sys.argv[:] = sys.argv[1:]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
