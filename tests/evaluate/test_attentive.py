from pathlib import Path

import numpy as np
import torch

from selfsup.evaluate import attentive
from selfsup.evaluate import evaluate as judge
from selfsup.load import Card, LoadedEncoder, modality_of, rebuild


def small_vit():
    card = Card("image", "vit_tiny", 12, {"dim": 32, "depth": 1, "heads": 2, "patch": 3},
                (0.5,) * 3, (0.5,) * 3)  # fmt: skip
    modality = modality_of(card, Path("encoder.json"))
    return LoadedEncoder(rebuild(card, modality, 0), card, modality)


def told_by_one_place(n, seed=0, places=12, d=16):
    """The class stands in one place, which is marked and is another one in each sample."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, places, d, generator=generator)
    y = torch.randint(3, (n,), generator=generator)
    x[:, :, 0] = 0.0
    for row in range(n):
        at = int(torch.randint(places, (1,), generator=generator))
        x[row, at, 0] = 6.0
        x[row, at, 1:4] = 3.0 * torch.eye(3)[y[row]]
    return x, y


def test_it_learns_where_to_look():
    (x, y), (new, wanted) = told_by_one_place(300), told_by_one_place(200, seed=1)
    heads = attentive.probe(x, y, 3)
    assert (attentive.predict(heads, new)[0] == wanted).float().mean() > 0.9
    from selfsup.evaluate import linear

    plane, scale = linear.probe(x.mean(1), y, 3)
    assert (plane(scale(new.mean(1))).argmax(1) == wanted).float().mean() < 0.75


def test_heads_against_a_slow_reading():
    torch.manual_seed(0)
    x = torch.randn(5, 7, 128)
    heads = attentive.Heads(x, 4, (0.1, 0.01))
    torch.nn.init.normal_(heads.weight)
    logits = heads(x)
    assert logits.shape == (2, 5, 4) and heads.queries.shape == (2, 2, 128)
    for g in range(2):
        for b in range(5):
            parts = []
            z = (x[b] - heads.mean) / heads.deviation
            for query in heads.queries[g]:
                share = torch.stack([(place * query).sum() for place in z]).softmax(0)
                parts.append(sum(s * place for s, place in zip(share, z, strict=True)))
            expected = torch.cat(parts) @ heads.weight[g] + heads.bias[g, 0]
            torch.testing.assert_close(logits[g, b], expected, atol=1e-4, rtol=1e-4)


def test_noise_gets_a_strong_penalty_and_the_same_seed_the_same_probe():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(80, 4, 8, generator=generator), torch.arange(80) % 2
    first, second = attentive.probe(x, y, 2, seed=3), attentive.probe(x, y, 2, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters()))
    assert first.weight.abs().max() < 1


def test_evaluate_puts_it_beside_controls():
    random = np.random.default_rng(0)
    images = random.integers(0, 60, (64, 12, 12, 3), np.uint8)
    labels = np.arange(64) % 2
    images[labels == 1, 3:6, 3:6] += 120
    found = judge(
        small_vit(), {"images": images, "labels": labels}, attentive=True, finetune=False,
        shots=(), seeds=2,
    )  # fmt: skip
    row = found.score("attentive")
    assert row["value"] > 0.8 and row["gain"]["control"] in ("untrained", "pixels + PCA")
    assert found.score("attentive", "untrained")["values"]
    assert "attentive probe accuracy" in str(found)
