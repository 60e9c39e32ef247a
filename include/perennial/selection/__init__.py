"""Which rows are worth training on, and beside which: pure functions over frozen rows, no I/O, no clock, no global
randomness.
"""

from perennial.selection.labels import LabelChoice, choose_labels
from perennial.selection.neighbours import Separation, near_duplicates, separate
from perennial.selection.priority_order import Ranked, priority_order
from perennial.selection.replay import share_out, stratified_replay

__all__ = [
    "LabelChoice",
    "Ranked",
    "Separation",
    "choose_labels",
    "near_duplicates",
    "priority_order",
    "separate",
    "share_out",
    "stratified_replay",
]
