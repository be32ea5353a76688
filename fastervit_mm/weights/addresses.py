"""Names of the published checkpoints.

The weights are the authors', for non-commercial use under the licence stated on their page; they
are not part of this package (``WEIGHTS_LICENSE.md``).
"""
_ROOT = 'https://huggingface.co/ahatamiz/FasterViT/resolve/main/'
SCHEME = 'fastervit://'

PUBLISHED = {
    **{f'{n}-224-1k': f'{_ROOT}fastervit_{n}_224_1k.pth.tar' for n in range(7)},
    '4-21k-224': f'{_ROOT}fastervit_4_21k_224_w14.pth.tar',
    '4-21k-384': f'{_ROOT}fastervit_4_21k_384_w24.pth.tar',
    '4-21k-512': f'{_ROOT}fastervit_4_21k_512_w32.pth.tar',
    '4-21k-768': f'{_ROOT}fastervit_4_21k_768_w48.pth.tar',
}
"""ImageNet networks."""


DETECTORS = {
    'dino-4scale-4-21k-224-coco': f'{_ROOT}DINO_4scale_faster_vit_4_21k_224_ms_coco.pth',
}
"""Whole detectors, converted on reading (:mod:`fastervit_mm.weights.dino`)."""


def resolve(checkpoint: str) -> str:
    """URL of a ``fastervit://`` name; any other argument unchanged.

    Args:
        checkpoint: Such as ``'fastervit://2-224-1k'``.

    Raises:
        ValueError: For an unknown name.
    """
    if not checkpoint.startswith(SCHEME):
        return checkpoint
    name = checkpoint[len(SCHEME):]
    files = {**PUBLISHED, **DETECTORS}
    if name not in files:
        raise ValueError(f'checkpoint={checkpoint!r}: no published checkpoint has this name; give '
                         f'one of {[SCHEME + n for n in files]}')
    return files[name]
