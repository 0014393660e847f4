"""Which layers move, and how fast; adapters that leave the weights beside them alone."""

import copy
from types import SimpleNamespace

import pytest
import small_encoder
import torch
from torch.nn.functional import cross_entropy

from selfsup.errors import SelfsupError
from selfsup.language import language
from selfsup.transfer import core, tasks
from selfsup.transfer.tasks import Choice, Classify, Network, Part


def vit(depth=3):
    return small_encoder.network("vit_tiny", 8, dim=16, depth=depth, heads=2)


def network(encoder):
    return Network(encoder, Classify(["a", "b"]))


def test_learning_rates_are_those_of_the_formula():
    """rate * decay ** (layers above): stem and positions 4 down, block i 3 - i, norm and head 0."""
    made = network(vit())
    rate = {}
    for group in core.groups(made, 2.0, 0.5):
        for parameter in group["params"]:
            rate[id(parameter)] = group["peak"]
    for name, parameter in made.encoder.named_parameters():
        if name.startswith("trunk.blocks."):
            expected = 2.0 * 0.5 ** (3 - int(name.split(".")[2]))
        else:
            expected = 2.0 if name.startswith("trunk.norm") else 2.0 * 0.5**4
        assert rate[id(parameter)] == expected, name
    assert {rate[id(p)] for p in made.head.parameters()} == {2.0}


def test_layers_of_texts_have_depths_too():
    encoder = language("bert_micro", 8, 20, dim=16, depth=2, heads=2)
    depths = {name: core.depth_of(name) for name, _ in encoder.named_parameters()}
    assert depths["stem.tokens"] == 0 and depths["blocks.0.qkv.weight"] == 1
    assert depths["blocks.1.down.weight"] == 2 and depths["norm.weight"] == core.TOP


def trained(made, steps=5):
    x = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(8) % 2
    core.fit(
        made, core.groups(made, 1e-2), lambda step: (x, y), cross_entropy, steps=steps, seed=0,
        pretrained=True, precision="fp32",
    )  # fmt: skip
    return x


@pytest.mark.parametrize("make", [vit, lambda: language("bert_micro", 8, 20, dim=16, heads=2)])
def test_adapters_start_as_nothing_and_stand_beside_every_linear_layer(make):
    encoder = make()
    before = copy.deepcopy(encoder.state_dict())
    layers = core.adaptable(encoder)
    assert len(layers) == 4 * len(getattr(encoder, "blocks", None) or encoder.trunk.blocks)
    core.adapt(encoder, rank=2)
    free = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert free and all(name.endswith((".down", ".up")) for name in free)
    assert len(free) == 2 * len(layers)
    core.merge(encoder)
    assert set(encoder.state_dict()) == set(before)
    assert all(torch.equal(encoder.state_dict()[name], before[name]) for name in before)


def test_frozen_weights_stay_and_merging_changes_no_answer():
    made = network(vit())
    core.adapt(made.encoder, rank=2)
    before = {name: p.clone() for name, p in made.encoder.named_parameters()}
    x = trained(made)
    for name, parameter in made.encoder.named_parameters():
        moved = not torch.equal(parameter, before[name])
        assert moved == name.endswith((".down", ".up")), name
    layer = made.encoder.trunk.blocks[0].attn.qkv
    adapter = layer.parametrizations.weight[0]
    change = core.STRENGTH / 2 * adapter.up @ adapter.down
    expected = layer.parametrizations.weight.original + change
    assert torch.linalg.matrix_rank(change) == 2
    with torch.no_grad():
        unmerged = made(x)
        core.merge(made.encoder)
        torch.testing.assert_close(made(x), unmerged, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(made.encoder.trunk.blocks[0].attn.qkv.weight, expected)
    assert set(made.encoder.state_dict()) == set(vit().state_dict())


def test_only_the_head_moves_where_nothing_else_may():
    made = network(vit())
    made.encoder.requires_grad_(False)
    before = copy.deepcopy(made.encoder.state_dict())
    trained(made)
    after = made.encoder.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert made.head.weight.abs().max() > 0


def test_adapters_without_a_transformer_are_refused():
    with pytest.raises(SelfsupError, match="low-rank") as caught:
        core.adapt(small_encoder.network("resnet18", 16, width=0.125))
    assert caught.value.code == "E202"


def test_training_repeats_and_leaves_global_random_numbers_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    found = []
    for _ in range(2):
        made = network(vit(1))
        state = torch.random.get_rng_state()
        trained(made, 3)
        assert torch.equal(state, torch.random.get_rng_state())
        found.append(made.head.weight.clone())
    assert torch.equal(*found) and len(expected) == 3


def test_rates_depend_on_what_is_trained(monkeypatch):
    """Held-out labels choose; every candidate is of its own list."""
    import numpy as np

    seen = []
    monkeypatch.setattr(tasks, "fresh", lambda task, encoder, **settings: settings["how"])
    monkeypatch.setattr(tasks, "train", lambda network, *a, choice, **s: seen.append(choice))
    monkeypatch.setattr(tasks, "outcomes", lambda *a: np.array([seen[-1].rate]))
    store = SimpleNamespace(source=SimpleNamespace(groups=lambda: None))
    part = Part(store, np.arange(20), np.arange(20) % 2)
    for how in tasks.HOW:
        seen.clear()
        found = tasks.choose(
            Classify(["a", "b"]), None, part, effort=core.Effort(20, 5), pretrained=True, seed=0,
            how=how,
        )  # fmt: skip
        assert found == Choice(tasks.RATES[how][1], True) and len(seen) == tasks.TRIALS
