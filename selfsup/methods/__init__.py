"""One paper per file. The folder is the registry: `--method mae` is the class in mae.py."""

from .dino import DINO as DINO
from .mae import MAE as MAE
from .simclr import SimCLR as SimCLR
