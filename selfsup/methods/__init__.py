"""One paper per file. The folder is the registry: `--method mae` is the class in mae.py."""

from .clm import CLM as CLM
from .dino import DINO as DINO
from .grace import GRACE as GRACE
from .graphmae import GraphMAE as GraphMAE
from .mae import MAE as MAE
from .mlm import MLM as MLM
from .simclr import SimCLR as SimCLR
from .ts2vec import TS2Vec as TS2Vec
from .wav2vec2 import Wav2Vec2 as Wav2Vec2
from .world_model import WorldModel as WorldModel
