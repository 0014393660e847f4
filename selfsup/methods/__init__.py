"""One paper per file. The folder is the registry: `--method mae` is the class in mae.py."""

from .barlowtwins import BarlowTwins as BarlowTwins
from .bgrl import BGRL as BGRL
from .byol import BYOL as BYOL
from .clm import CLM as CLM
from .dgi import DGI as DGI
from .dino import DINO as DINO
from .electra import ELECTRA as ELECTRA
from .grace import GRACE as GRACE
from .graphmae import GraphMAE as GraphMAE
from .hubert import HuBERT as HuBERT
from .lejepa import LeJEPA as LeJEPA
from .mae import MAE as MAE
from .mdlm import MDLM as MDLM
from .mlm import MLM as MLM
from .moco import MoCo as MoCo
from .mocov3 import MoCoV3 as MoCoV3
from .msn import MSN as MSN
from .nnclr import NNCLR as NNCLR
from .simclr import SimCLR as SimCLR
from .simcse import SimCSE as SimCSE
from .simsiam import SimSiam as SimSiam
from .swav import SwAV as SwAV
from .tico import TiCo as TiCo
from .ts2vec import TS2Vec as TS2Vec
from .vicreg import VICReg as VICReg
from .wav2vec2 import Wav2Vec2 as Wav2Vec2
