"""Count of the recipes' costs."""
import json
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import recipes


def test_a_tensor_kept_twice_counts_once_and_parameters_not_at_all():
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    image = torch.rand(16, 4)
    # The input, and the map between the layers, which ReLU and the second layer keep.
    assert recipes.activations(model, lambda: model(image)) == 4 * 16 * (4 + 8)


def test_attention_counts_without_its_logits():
    linear = nn.Linear(8, 8, bias=False)
    bias = nn.Parameter(torch.zeros(1, 1, 50, 50))

    def attend():
        q, k, v = (linear(torch.ones(1, 1, 50, 8)) for _ in range(3))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)

    # Three inputs of the layer; query, key, value and output; the bias of all pairs.
    assert recipes.activations(linear, attend) == 4 * (50 * 8 * (3 + 4) + 50 * 50)


@pytest.mark.long
def test_the_program_counts_what_is_on_the_page(tmp_path, monkeypatch):
    name, out = 'mmseg/segformer_fvit_0', tmp_path / 'recipes.json'
    monkeypatch.setattr(sys, 'argv', ['recipes', '--recipes', name, '--out', str(out)])
    recipes.main()
    found, kept = (json.loads(path.read_text())['rows'][name] for path in (out, recipes.OUT))
    assert found == kept
