"""Ways to learn, one per file: a frozen dataclass of settings with ``fit`` and ``load``; found by walking this
folder.
"""

from perennial.trainers.bases import LocalBaseStore, MemoryEmbeddings
from perennial.trainers.catalogue import catalogue, trainer_for

__all__ = ["LocalBaseStore", "MemoryEmbeddings", "catalogue", "trainer_for"]
