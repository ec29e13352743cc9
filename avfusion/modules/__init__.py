"""The components, one ``nn.Module`` a file."""

from avfusion.modules.attention.multi_head_attention import MultiHeadAttention
from avfusion.modules.audio_visual_connector import AudioVisualConnector
from avfusion.modules.component import Component
from avfusion.modules.diversity_loss import DiversityLoss
from avfusion.modules.multi_resolution_projector import MultiResolutionProjector
from avfusion.modules.qformer.causal_qformer import CausalQFormer
from avfusion.modules.real_windows import is_sharded
from avfusion.modules.sliding_window_projector import SlidingWindowProjector
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
    "is_sharded",
]
