"""The published variants (FasterViT, arXiv 2306.06189, tables 1 and S.1), one table."""
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Dict, Mapping, Optional, Tuple, Union

from .stages import check_whole, require


@dataclass(frozen=True)
class Variant:
    """What makes one FasterViT network.

    Args:
        embed_dim: Channels of stage 1, C; the four stages are C, 2C, 4C and 8C wide.
        stem_channels: Channels between the two convolutions of the stem.
        depths: Blocks in each of the four stages.
        num_heads: Attention heads in each stage. The two convolutional stages ignore theirs.
        window_size: Side of an attention window in stages 3 and 4, in cells.
        hierarchical: Whether stage 3 has carrier tokens (hierarchical attention).
        ct_size: Carrier tokens along one side of a window.
        layer_scale: Initial value of layer scale in transformer blocks; None for no layer scale.
        propagate_carriers: Whether the last block of stage 3 adds its carrier tokens to the map.
        carrier_bias: Initial value of the learned bias, one for each head and block, in the
            attention of a window's cells towards its carrier tokens. At the default of 8, that of
            cells towards each other, a carrier is heard as a cell is at first; at 0, the paper's,
            with e^-8 of a cell's weight. Weights that were trained without it, the authors' among
            them, give 0.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0.
    """
    embed_dim: int
    stem_channels: int
    depths: Tuple[int, int, int, int]
    num_heads: Tuple[int, int, int, int] = (2, 4, 8, 16)
    window_size: Tuple[int, int] = (7, 7)
    hierarchical: bool = True
    ct_size: int = 2
    layer_scale: Optional[float] = None
    propagate_carriers: bool = False
    carrier_bias: float = 8.
    drop_path_rate: float = 0.2

    def __post_init__(self):
        check_whole(embed_dim=self.embed_dim, stem_channels=self.stem_channels)
        check_whole(4, depths=self.depths, num_heads=self.num_heads)
        check_whole(2, window_size=self.window_size)
        for name in ('carrier_bias', 'layer_scale'):
            value = getattr(self, name)
            require(isinstance(value, (int, float)) or value is None and name == 'layer_scale',
                    f'{name}={value!r}: give a number')

    def stage_dim(self, stage: int) -> int:
        """Width of a stage's map (stages count from 0)."""
        return self.embed_dim * 2**stage


_DEEP: Dict[str, Any] = dict(num_heads=(4, 8, 16, 32), layer_scale=1e-5, propagate_carriers=True)
_4_21K = Variant(196, 64, (3, 3, 12, 5), num_heads=(4, 8, 16, 32), window_size=(14, 7),
                 hierarchical=False, layer_scale=1e-5, drop_path_rate=0.42)

VARIANTS: Mapping[str, Variant] = {
    '0': Variant(64, 64, (2, 3, 6, 5)),
    '1': Variant(80, 32, (1, 3, 8, 5)),
    '2': Variant(96, 64, (3, 3, 8, 5)),
    '3': Variant(128, 64, (3, 3, 12, 5), layer_scale=1e-5, propagate_carriers=True,
                 drop_path_rate=0.3),
    '4': Variant(196, 64, (3, 3, 12, 5), drop_path_rate=0.3, **_DEEP),
    '5': Variant(320, 64, (3, 3, 12, 5), drop_path_rate=0.3, **_DEEP),
    '6': Variant(320, 64, (3, 3, 16, 8), drop_path_rate=0.5, **_DEEP),
    '4-21k-224': _4_21K,
    '4-21k-384': replace(_4_21K, window_size=(24, 12)),
    '4-21k-512': replace(_4_21K, window_size=(32, 16)),
    '4-21k-768': replace(_4_21K, window_size=(48, 24)),
}


def resolve_variant(arch: Union[str, Mapping[str, Any]], **overrides) -> Variant:
    """The variant that ``arch`` names or spells out, with the overrides that are not None.

    Args:
        arch: A key of :data:`VARIANTS`, or a dict of :class:`Variant`'s fields; with such a key as
            ``base`` in it, of those that differ from that variant.
        **overrides: Fields that replace the variant's own. ``window_size`` may be one int for
            both stages.

    Raises:
        ValueError: For an unknown name, an unknown or missing field, or a field out of range.
    """
    known = [f.name for f in fields(Variant)]
    settings: Dict[str, Any] = dict(arch) if isinstance(arch, Mapping) else dict(base=arch)
    if 'base' in settings:
        name = str(settings.pop('base'))
        require(name in VARIANTS, f'arch={name!r}: give one of {list(VARIANTS)}, or a dict with '
                f'the fields {known}')
        settings = {**asdict(VARIANTS[name]), **settings}
    unknown, missing = set(settings) - set(known), [n for n in known[:3] if n not in settings]
    require(not unknown and not missing,
            f'arch={settings}: unknown fields {sorted(unknown)}, missing fields {missing}; the '
            f'fields are {known}')
    settings.update({k: v for k, v in overrides.items() if v is not None})
    if isinstance(settings.get('window_size'), int):
        settings['window_size'] = (settings['window_size'],) * 2
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    return Variant(**settings)
