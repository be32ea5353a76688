"""Best modes in a report, and comparison at equal accuracy."""
from typing import Dict, List

from .peers import EQUAL, PEERS, SETS


def best_modes(results: List[dict]) -> List[dict]:
    """The fastest result of each network in each table."""
    best: Dict[tuple, dict] = {}
    for r in results:
        if r['seconds']:
            key = (*table_of(r), r['model'])
            if key not in best or r['seconds'] < best[key]['seconds']:
                best[key] = r
    return list(best.values())


def table_of(r: dict) -> tuple:
    """Key shared by comparable results."""
    return r['step'], tuple(r['size']), r['batch'], r['precision'], r.get('group', 0)


def equals(results: List[dict]) -> List[dict]:
    """Compare networks of equal accuracy in their best modes.

    Returns:
        A dict for each measured pair: step, size, batch, precision, group; model, its mode,
        images a second and top-1; the same of the peer; ``faster``, the ratio of images a second;
        ``equal``, whether their top-1 differs by at most :data:`~benchmarks.speed.peers.EQUAL`.
    """
    best = {(*table_of(r), r['model']): r for r in best_modes(results)}
    pairs = []
    for model, *others in SETS['equal-accuracy']:
        for key, ours in best.items():
            for peer in others if key[-1] == model else []:
                if (theirs := best.get((*key[:-1], peer))) is not None:
                    pairs.append(dict(
                        zip(('step', 'size', 'batch', 'precision', 'group'), key), model=model,
                        mode=ours['mode'], images_per_second=ours['images_per_second'],
                        top1=PEERS[model].top1, peer=peer, peer_mode=theirs['mode'],
                        peer_images_per_second=theirs['images_per_second'],
                        peer_top1=PEERS[peer].top1,
                        faster=ours['images_per_second'] / theirs['images_per_second'],
                        equal=round(abs(PEERS[model].top1 - PEERS[peer].top1), 6) <= EQUAL))
    return pairs
