"""Which rows are worth training on, and beside which: pure functions over frozen rows, no I/O, no clock, no global
randomness.
"""

from perennial.selection.labels import LabelChoice, choose_labels
from perennial.selection.neighbours import Separation, families, near_duplicates, separate
from perennial.selection.priority_order import Ranked, priority_order
from perennial.selection.replay import share_out, stratified_replay
from perennial.selection.screening import Rules, Screening, screen
from perennial.selection.sent import Sent

__all__ = [
    "LabelChoice",
    "Ranked",
    "Rules",
    "Screening",
    "Sent",
    "Separation",
    "choose_labels",
    "families",
    "near_duplicates",
    "priority_order",
    "screen",
    "separate",
    "share_out",
    "stratified_replay",
]
