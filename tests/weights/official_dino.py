"""Files as the official DINO code saves them: names and shapes of any size, and small whole ones.

Written from the list of its names, and apart from what converts them; :func:`names_and_shapes` of
the small detector is compared with the names of ``dino_official_tiny``, which that code wrote.
"""
import argparse
from pathlib import Path
from typing import Callable, Dict, Mapping, Optional, Sequence, Tuple

import torch
from torch import Tensor

Shape = Tuple[int, ...]
# The small detector of dino_official_tiny, and the published one.
SMALL = dict(width=8, stem=8, depths=(1, 2, 1, 1), heads=(2, 4), layers=2, hidden=64, queries=30)
FULL = dict(width=196, stem=64, depths=(3, 3, 12, 5), heads=(16, 32), layers=6, hidden=2048,
            queries=900)
ARCH = dict(embed_dim=8, stem_channels=8, depths=(1, 2, 1, 1), num_heads=(1, 1, 2, 4),
            window_size=(14, 7), hierarchical=False, layer_scale=1e-5)


def config_text(base: Path, more: str = '') -> str:
    """A config of the small detector that inherits another."""
    return f"""
_base_ = {str(base)!r}
model = dict(
    num_queries={SMALL['queries']},
    backbone=dict(arch=dict(_delete_=True, **{ARCH!r}), init_cfg=None),
    neck=dict(in_channels=[16, 32, 64]),
    encoder=dict(num_layers=2, layer_cfg=dict(ffn_cfg=dict(feedforward_channels=64))),
    decoder=dict(num_layers=2, layer_cfg=dict(ffn_cfg=dict(feedforward_channels=64))))
{more}"""


def names_and_shapes(width: int, stem: int, depths: Sequence[int], heads: Sequence[int],
                     layers: int, hidden: int, queries: int, windows: Sequence[int] = (14, 7),
                     stages: Sequence[int] = (1, 2, 3)) -> Dict[str, Shape]:
    """Names and shapes in a file of COCO's 91 classes."""
    found: Dict[str, Shape] = {}

    def add(name: str, out: int, *inputs: int, bias: bool = True) -> None:
        found[f'{name}.weight'] = (out, *inputs)
        if bias:
            found[f'{name}.bias'] = (out,)

    def batch_norm(name: str, channels: int) -> None:
        add(name, channels)
        found.update({f'{name}.running_mean': (channels,), f'{name}.running_var': (channels,),
                      f'{name}.num_batches_tracked': ()})

    # Transformer.
    levels = len(stages) + 1
    found['transformer.level_embed'] = (levels, 256)
    found['transformer.tgt_embed.weight'] = (queries, 256)
    for part, attention, norms in (('encoder', 'self_attn', 2), ('decoder', 'cross_attn', 3)):
        for i in range(layers):
            root = f'transformer.{part}.layers.{i}'
            add(f'{root}.{attention}.sampling_offsets', 8 * levels * 4 * 2, 256)
            add(f'{root}.{attention}.attention_weights', 8 * levels * 4, 256)
            add(f'{root}.{attention}.value_proj', 256, 256)
            add(f'{root}.{attention}.output_proj', 256, 256)
            for number in range(1, norms + 1):
                add(f'{root}.norm{number}', 256)
            add(f'{root}.linear1', hidden, 256)
            add(f'{root}.linear2', 256, hidden)
            if part == 'decoder':
                found[f'{root}.self_attn.in_proj_weight'] = (768, 256)
                found[f'{root}.self_attn.in_proj_bias'] = (768,)
                add(f'{root}.self_attn.out_proj', 256, 256)
    add('transformer.decoder.norm', 256)
    add('transformer.decoder.ref_point_head.layers.0', 256, 512)
    add('transformer.decoder.ref_point_head.layers.1', 256, 256)
    add('transformer.enc_output', 256, 256)
    add('transformer.enc_output_norm', 256)
    classes = ['transformer.enc_out_class_embed']
    boxes = ['transformer.enc_out_bbox_embed']
    for root in ('', 'transformer.decoder.'):
        classes += [f'{root}class_embed.{i}' for i in range(layers)]
        boxes += [f'{root}bbox_embed.{i}' for i in range(layers)]
    for head in classes:
        add(head, 91, 256)
    for head in boxes:
        for i, out in enumerate((256, 256, 4)):
            add(f'{head}.layers.{i}', out, 256)
    found['label_enc.weight'] = (92, 256)
    for i, stage in enumerate([*stages, None]):
        add(f'input_proj.{i}.0', 256, *((width * 2**stages[-1], 3, 3) if stage is None else
                                        (width * 2**stage, 1, 1)))
        add(f'input_proj.{i}.1', 256)
    # Backbone.
    root = 'backbone.0.patch_embed.conv_down'
    add(f'{root}.0', stem, 3, 3, 3, bias=False)
    batch_norm(f'{root}.1', stem)
    add(f'{root}.3', width, stem, 3, 3, bias=False)
    batch_norm(f'{root}.4', width)
    for stage, depth in enumerate(depths):
        dim, level = width * 2**stage, f'backbone.0.levels.{stage}'
        for i in range(depth):
            root = f'{level}.blocks.{i}'
            if stage < 2:
                for number in (1, 2):
                    add(f'{root}.conv{number}', dim, dim, 3, 3)
                    batch_norm(f'{root}.norm{number}', dim)
                continue
            cells, head = windows[stage - 2]**2, heads[stage - 2]
            side = 2 * windows[stage - 2] - 1
            found.update({f'{root}.gamma3': (dim,), f'{root}.gamma4': (dim,),
                          f'{root}.pos_embed.relative_bias': (1, cells, dim)})
            add(f'{root}.pos_embed.cpb_mlp.0', 512, 2)
            add(f'{root}.pos_embed.cpb_mlp.2', dim, 512, bias=False)
            for number in (1, 2):
                add(f'{root}.norm{number}', dim)
            add(f'{root}.attn.qkv', 3 * dim, dim)
            add(f'{root}.attn.proj', dim, dim)
            relative = f'{root}.attn.pos_emb_funct'
            found.update({f'{relative}.relative_coords_table': (1, side, side, 2),
                          f'{relative}.relative_position_index': (cells, cells),
                          f'{relative}.relative_bias': (1, head, cells, cells)})
            add(f'{relative}.cpb_mlp.0', 512, 2)
            add(f'{relative}.cpb_mlp.2', head, 512, bias=False)
            add(f'{root}.mlp.fc1', 4 * dim, dim)
            add(f'{root}.mlp.fc2', dim, 4 * dim)
        if stage < 3:
            add(f'{level}.downsample.norm', dim)
            add(f'{level}.downsample.reduction.0', 2 * dim, dim, 3, 3, bias=False)
        if stage in stages:
            batch_norm(f'backbone.0.norm{stage}', dim)
    return found


def fill(shapes: Mapping[str, Shape], value: Callable[[Shape], Tensor]) -> Dict[str, Tensor]:
    """Tensors of those shapes, with window positions as the detectors' code keeps them."""
    tensors = {}
    for name, shape in shapes.items():
        integers = name.endswith(('num_batches_tracked', 'relative_position_index'))
        tensors[name] = torch.zeros(shape, dtype=torch.long) if integers else value(shape)
    for name in shapes:
        root, ending, rest = name.partition('pos_embed.relative_bias')
        if ending and not rest:
            n = round(shapes[name][1]**0.5)
            axis = (torch.arange(n) - n * n // 2) / (n * n // 2)  # of the cells' number, not n
            first, bias, last = (torch.randn(shapes[f'{root}pos_embed.cpb_mlp.{part}']) / 8
                                 for part in ('0.weight', '0.bias', '2.weight'))
            hidden = (torch.cartesian_prod(axis, axis) @ first.T + bias).relu()
            tensors.update({f'{root}pos_embed.cpb_mlp.0.weight': first,
                            f'{root}pos_embed.cpb_mlp.0.bias': bias,
                            f'{root}pos_embed.cpb_mlp.2.weight': last,
                            name: (hidden @ last.T)[None]})
    return tensors


def small_tensors(**sizes) -> Dict[str, Tensor]:
    """The small detector's tensors, small random numbers."""
    return fill(names_and_shapes(**{**SMALL, **sizes}), lambda shape: torch.rand(shape) / 16 + 0.1)


def save(path: Path, tensors: Optional[Mapping[str, Tensor]] = None, **more) -> Path:
    """A training checkpoint of those tensors, default the small detector's."""
    tensors = small_tensors() if tensors is None else tensors
    torch.save(dict(model=dict(tensors), optimizer=dict(state={}, param_groups=[]), epoch=11,
                    lr_scheduler={}, args=argparse.Namespace(epochs=12, lr=1e-4), **more), path)
    return path
