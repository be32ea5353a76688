#!/usr/bin/env python
"""Write docs/model_zoo.md from the metafiles that model-index.yml lists."""
import argparse
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
HEAD = """\
# Model zoo

<!-- Written by tools/make_model_zoo.py from the metafiles; change those. -->

Figures marked *paper* are those of [FasterViT](https://arxiv.org/abs/2306.06189), quoted second
hand and **not re-trained here**. No checkpoint of a detector or segmentor is published with this
package: networks start from the authors' ImageNet weights, which are **not for commercial use**
([licence](faq.md#licence)), and [SwinHAT](swin_hat.md) from Swin's. One detector is *published by
the authors*: it stands apart, with the command that evaluates it ([DINO](dino.md)). *Throughput in
the paper* is its column of images per second on one A100; what was timed is not stated, and it is
not the speed of a whole detector or segmentor. A dash means that no figure was published.
"""
SPEED = 'Paper Throughput (im/s, one A100)'


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--index', type=Path, default=ROOT / 'model-index.yml',
                        help='the list of metafiles (default: the repository\'s)')
    parser.add_argument('--out', type=Path, default=ROOT / 'docs/model_zoo.md',
                        help='page to write (default: docs/model_zoo.md)')
    return parser.parse_args()


def page(index):
    """The page, as text."""
    parts = [HEAD]
    for name in yaml.safe_load(index.read_text())['Import']:
        metafile = yaml.safe_load((index.parent / name).read_text())
        for collection in metafile['Collections']:
            models = [m for m in metafile['Models'] if m['In Collection'] == collection['Name']]
            for data in dict.fromkeys(m['Metadata']['Training Data'] for m in models):
                chosen = [m for m in models if m['Metadata']['Training Data'] == data]
                published = all('Published Weights' in m['Metadata'] for m in chosen)
                parts.append(f'## {collection["Name"]}, {data}\n\n'
                             f'{published_table(chosen) if published else table(chosen)}')
    return '\n'.join(parts)


def table(models):
    """A table of models trained alike, and what their metafile says of them below it."""
    metrics = list(dict.fromkeys(name for m in models for name in figures(m)))
    settings = [name for name in ('Crop Size', SPEED)
                if len({m['Metadata'].get(name) for m in models}) > 1]
    head = ['config', 'backbone', 'weights to start from', *map(short, settings), *metrics,
            'figures']
    rows, notes = [], []
    for model in models:
        meta, found = model['Metadata'], figures(model)
        start = meta.get('Pretrained Backbone')
        cells = [f'`{model["Config"]}`', meta['Backbone'], f'`{start}`' if start else 'none']
        cells += [meta.get(name, '–') for name in settings]
        cells += [found.get(name, '–') for name in metrics]
        rows.append([*cells, source(model)])
        if 'Published Detector' in meta:
            notes.append(f'`{model["Name"]}`: published by the authors, checked by evaluation: not '
                         'here, no data; the command is\n`python tools/test.py '
                         f'{model["Config"]} {meta["Published Detector"]}`.')
        if 'Results Note' in meta:
            notes.append(f'`{model["Name"]}`: {meta["Results Note"]}.')
    lines = [head, ['---'] * len(head), *rows]
    text = '\n'.join('| ' + ' | '.join(map(str, line)) + ' |' for line in lines)
    meta = models[0]['Metadata']
    schedule = ', '.join(f'{meta[name]} {word}' for name, word in (
        ('Epochs', 'epochs'), ('Iterations', 'iterations')) if name in meta)
    recipe = f'{schedule}, batch {meta["Batch Size"]}, {", ".join(meta["Training Techniques"])}.'
    return '\n\n'.join([recipe, text, *notes]) + '\n'


def published_table(models):
    """A table of whole networks whose weights and figures are the authors'."""
    metrics = list(dict.fromkeys(name for m in models for name in figures(m)))
    rows = [['config', 'backbone', 'published weights', 'image', 'crop', *metrics, 'figures']]
    rows.append(['---'] * len(rows[0]))
    for model in models:
        meta, found = model['Metadata'], figures(model)
        if 'not evaluated here' not in meta['Results Source']:
            raise KeyError(f'{model["Name"]}: Results Source: say "not evaluated here"')
        rows.append([f'`{model["Config"]}`', meta['Backbone'], f'`{meta["Published Weights"]}`',
                     meta['Image Size'], meta['Crop'], *(found.get(name, '–') for name in metrics),
                     'authors, not evaluated here'])
    first = models[0]
    return (
        'Published by the authors, checked by evaluation: not here, no data. The command is '
        '`python tools/test.py CONFIG WEIGHTS`,\nsuch as '
        f'`python tools/test.py {first["Config"]} {first["Metadata"]["Published Weights"]}`.\n\n'
        + '\n'.join('| ' + ' | '.join(map(str, row)) + ' |' for row in rows) + '\n')


def figures(model):
    """Metrics of all tasks."""
    results = model.get('Results', [])
    results = [results] if isinstance(results, dict) else results
    return {name: value for result in results for name, value in result['Metrics'].items()}


def source(model):
    """Where the figures come from."""
    if not figures(model):
        return 'none'
    said = model['Metadata']['Results Source']
    for origin, caveat in (('paper', 'not re-trained here'),
                           ('published by the authors', 'not evaluated here')):
        if said.startswith(origin):
            if caveat not in said:
                raise KeyError(f'{model["Name"]}: Results Source: say "{caveat}"')
            return f'{origin}, {caveat}'
    return said


def short(name):
    return {SPEED: 'throughput in the paper, im/s', 'Crop Size': 'crop'}[name]


def main():
    args = parse_args()
    try:
        args.out.write_text(page(args.index))
    except (OSError, KeyError, yaml.YAMLError) as error:
        sys.exit(f'make_model_zoo: {args.index}: {type(error).__name__}: {error}')
    print(args.out)


if __name__ == '__main__':
    main()
