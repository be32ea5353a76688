#!/usr/bin/env python
"""Write docs/model_zoo.md from the metafiles that model-index.yml lists, and the recipes' costs."""
import argparse
import json
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
HEAD = """\
# Model zoo

<!-- Written by tools/make_model_zoo.py from the metafiles; change those. -->

No checkpoint is published with this package. Networks start from the authors' ImageNet weights,
which are **not for commercial use** ([licence](faq.md#licence)),
[SwinHAT](hierarchical_attention.md#swin-hat) from Swin's. The paper is
[FasterViT](https://arxiv.org/abs/2306.06189), quoted second hand; im/s is its throughput on one
A100, of what is not stated.
"""
REST = """\
The other {} configs in `configs/` have no figures: other variants and windows, FSDP, SwinHAT, small
networks for your own data, and recipes for classifiers.
"""
RECIPES = """\
## Recipes

Usual networks on configs of mmdet and mmseg, **not trained to the end here**. `as_mambavision` is
not the paper's recipe but after [MambaVision-B](https://github.com/NVlabs/MambaVision)'s logs.
Memory is what a training step of two images keeps for its backward pass in float32, counted and not
measured (`python -m benchmarks.recipes`); weights, gradients and AdamW add 16 bytes a parameter.

| config | parameters, M | GMAC | tested at | memory, GB | trained at |
| --- | --- | --- | --- | --- | --- |
"""
COSTS = ROOT / 'benchmarks/recipes.json'
SPEED = 'Paper Throughput (im/s, one A100)'
# Beginning of a Results Source, text that it must contain, and sentence above the figures.
THEIRS = 'Published by the authors, **not evaluated here** ({}).'
SOURCES = {
    'paper': ('not re-trained here', 'The paper\'s, **not reproduced here**.'),
    'published by the authors': ('not evaluated here', THEIRS.format('[DINO](dino.md)')),
    'authors': ('not evaluated here', THEIRS.format('[ImageNet](imagenet.md)')),
    'this project': ('', 'This project\'s.')}


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--index', type=Path, default=ROOT / 'model-index.yml',
                        help='the list of metafiles (default: the repository\'s)')
    parser.add_argument('--out', type=Path, default=ROOT / 'docs/model_zoo.md',
                        help='page to write (default: docs/model_zoo.md)')
    return parser.parse_args()


def page(index):
    """The page, as text."""
    parts, rest = [], 0
    costs = {f'configs/{name}.py': row
             for name, row in json.loads(COSTS.read_text())['rows'].items()}
    for title, models in groups(index):
        shown = [model for model in models if figures(model)]
        rest += sum(not figures(model) and model['Config'] not in costs for model in models)
        if shown:
            parts.append(f'## {title}\n\n{table(shown)}')
    return '\n'.join([HEAD, REST.format(rest), *parts, recipes(costs)])


def recipes(costs):
    """Section on the recipes' costs."""
    return RECIPES + ''.join(
        f'| `{config}` | {row["parameters"] / 1e6:.1f} | {row["multiply_adds"] / 1e9:.0f} '
        f'| {size(row["tested"])} | {row["activations"] / 1e9:.1f} | {size(row["trained"])} |\n'
        for config, row in costs.items())


def size(shape):
    return '×'.join(map(str, shape))


def groups(index):
    """Titles and models of each collection and data set."""
    for name in yaml.safe_load(index.read_text())['Import']:
        metafile = yaml.safe_load((index.parent / name).read_text())
        for collection in metafile['Collections']:
            models = [m for m in metafile['Models'] if m['In Collection'] == collection['Name']]
            for data in dict.fromkeys(m['Metadata']['Training Data'] for m in models):
                yield f'{collection["Name"]}, {data}', [
                    m for m in models if m['Metadata']['Training Data'] == data]


def table(models):
    """Table of a group's figures, its source above, notes below."""
    metrics = list(dict.fromkeys(name for m in models for name in figures(m)))
    settings = {'Image Size': 'image', 'Crop': 'crop', SPEED: 'im/s'}
    settings = {name: short for name, short in settings.items()
                if any(name in m['Metadata'] for m in models)}
    rows = [['config', 'weights' if published(models[0]) else 'starts from', *settings.values(),
             *metrics]]
    rows.append(['---'] * len(rows[0]))
    notes = []
    for model in models:
        meta, found = model['Metadata'], figures(model)
        weights = published(model) or meta.get('Pretrained Backbone')
        rows.append([f'`{model["Config"]}`', f'`{weights}`' if weights else 'random weights',
                     *(meta.get(name, '–') for name in settings),
                     *(found.get(name, '–') for name in metrics)])
        if 'Results Note' in meta:
            notes.append(f'`{model["Name"]}`: {meta["Results Note"]}.')
    text = '\n'.join('| ' + ' | '.join(map(str, row)) + ' |' for row in rows)
    return '\n\n'.join([f'{source(models)} {recipe(models[0])}', text, *notes]) + '\n'


def published(model):
    """Name of a whole network's published weights, or None."""
    meta = model['Metadata']
    return meta.get('Published Detector') or meta.get('Published Weights')


def recipe(model):
    """Training recipe, or the command that evaluates a published model."""
    if published(model):
        return 'The command is `python tools/test.py CONFIG WEIGHTS`.'
    meta = model['Metadata']
    schedule = ', '.join(f'{meta[name]} {word}' for name, word in (
        ('Epochs', 'epochs'), ('Iterations', 'iterations')) if name in meta)
    return f'{schedule}, batch {meta["Batch Size"]}, {", ".join(meta["Training Techniques"])}.'


def figures(model):
    """Metrics of all tasks."""
    results = model.get('Results', [])
    results = [results] if isinstance(results, dict) else results
    return {name: value for result in results for name, value in result['Metrics'].items()}


def source(models):
    """Sentence on the figures' origin, which each metafile must state."""
    lines = set()
    for model in models:
        said = model['Metadata']['Results Source']
        caveat, line = next((value for start, value in SOURCES.items() if said.startswith(start)),
                            (None, None))
        if line is None or caveat not in said:
            raise KeyError(f'{model["Name"]}: Results Source: say "{caveat or "whose it is"}"')
        # This project's own figures also state machine and date.
        lines.add(line if caveat else line.replace('.', said.removeprefix('this project') + '.'))
    return ' '.join(sorted(lines))


def main():
    args = parse_args()
    try:
        args.out.write_text(page(args.index))
    except (OSError, KeyError, yaml.YAMLError) as error:
        sys.exit(f'make_model_zoo: {args.index}: {type(error).__name__}: {error}')
    print(args.out)


if __name__ == '__main__':
    main()
