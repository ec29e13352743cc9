"""The components."""

from avfusion.modules.attention.multi_head_attention import MultiHeadAttention
from avfusion.modules.audio_visual_connector import AudioVisualConnector
from avfusion.modules.component import Component
from avfusion.modules.diversity_loss import DiversityLoss
from avfusion.modules.projector.multi_resolution_projector import MultiResolutionProjector
from avfusion.modules.projector.sliding_window_projector import SlidingWindowProjector
from avfusion.modules.projector.two_resolution_encoder import TwoResolutionEncoder
from avfusion.modules.projector.window_encoding import is_sharded
from avfusion.modules.qformer.causal_qformer import CausalQFormer
from avfusion.modules.synchroniser.frame_synchroniser import FrameSynchroniser

__all__ = [
    "AudioVisualConnector",
    "CausalQFormer",
    "Component",
    "DiversityLoss",
    "FrameSynchroniser",
    "MultiHeadAttention",
    "MultiResolutionProjector",
    "SlidingWindowProjector",
    "TwoResolutionEncoder",
    "is_sharded",
]
