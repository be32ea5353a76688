"""Views into a FasterViT: attention, carriers, feature maps, receptive fields."""
from .attention import (
    BlockAttention,
    StageAttention,
    StageGrid,
    attention_at,
    probabilities,
    stage_grids,
)
from .receptive_field import Reach, carriers_cut, effective_receptive_field, reach
from .subject import Prepared, Subject, load_subject, subject_of

__all__ = ['BlockAttention', 'Prepared', 'Reach', 'StageAttention', 'StageGrid', 'Subject',
           'attention_at', 'carriers_cut', 'effective_receptive_field', 'load_subject',
           'probabilities', 'reach', 'stage_grids', 'subject_of']
