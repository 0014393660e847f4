import numpy as np
import pytest
import small_encoder
import torch

from selfsup.data import open_source, open_store
from selfsup.evaluate import finetune, linear
from selfsup.load import load
from selfsup.transfer import core, tasks


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """Two classes of noise that differ in brightness of one half: learnable in a few steps."""
    folder = tmp_path_factory.mktemp("finetune")
    small_encoder.export(folder / "encoder", "resnet18", 16, width=0.125)
    generator = np.random.default_rng(0)
    labels = np.arange(96) % 2
    pictures = generator.integers(0, 128, (96, 16, 16, 3))
    pictures[labels == 1, :, :8] += 100
    store = open_store(
        open_source(pictures.astype(np.uint8)), load(folder / "encoder").modality, 16
    )
    return load(folder / "encoder"), store, labels


def test_depths_rise_from_the_input_to_the_head():
    vit = small_encoder.network("vit_tiny", 16, depth=3)
    depths = {name: core.depth_of(name) for name, _ in vit.named_parameters()}
    assert depths["stem.weight"] == depths["positions"] == 0
    assert (
        depths["trunk.blocks.0.norm1.weight"] == 1 and depths["trunk.blocks.2.mlp.fc1.weight"] == 3
    )
    resnet = small_encoder.network("resnet18", 16, width=0.125)
    depths = {name: core.depth_of(name) for name, _ in resnet.named_parameters()}
    assert depths["conv1.weight"] == 0 and depths["layer4.1.conv2.weight"] == 4


@pytest.mark.parametrize(("name", "top"), [("vit_tiny", 4), ("resnet18", 5)])
def test_every_parameter_is_in_one_group_and_lower_ones_move_less(name, top):
    keywords = {"depth": 3} if name == "vit_tiny" else {"width": 0.125}
    network = tasks.Network(
        small_encoder.network(name, 16, **keywords), tasks.Classify(list("abc"))
    )
    groups = core.groups(network, rate=1.0, decay=0.5)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in network.parameters())
    rate = {id(p): group["lr"] for group in groups for p in group["params"]}
    fades = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    first = network.encoder.stem.weight if name == "vit_tiny" else network.encoder.conv1.weight
    assert rate[id(network.head.weight)] == 1.0 and rate[id(first)] == 0.5**top
    assert all(fades[id(p)] == 0 for p in network.parameters() if p.ndim == 1)
    if name == "vit_tiny":
        assert rate[id(network.encoder.trunk.norm.weight)] == 1.0
        assert fades[id(network.encoder.positions)] == 0


def test_fine_tuning_begins_as_the_linear_probe(case):
    encoder, store, labels = case
    x, y = torch.from_numpy(encoder.embed(store.source, precision="fp32")), torch.from_numpy(labels)
    plane, scale = linear.probe(x, y, 2)
    network = finetune.fresh(encoder, 2, pretrained=True, seed=0).eval()
    network.start_head(*finetune.plain_head(plane, scale))
    batch = encoder.modality.plain(store.batch(np.arange(8)), 16)
    torch.testing.assert_close(network(batch), plane(scale(x[:8])), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("pretrained", [True, False])
def test_training_learns_repeats_and_leaves_the_encoder_alone(case, pretrained):
    encoder, store, labels = case
    before = encoder.fingerprint()
    rows = np.arange(64)
    found = []
    for _ in range(2):
        network = finetune.fresh(encoder, 2, pretrained=pretrained, seed=1)
        statistics = network.encoder.bn1.running_mean.clone()
        finetune.train(
            network, encoder, store, rows, labels[:64], steps=30,
            choice=finetune.Choice(3e-3), pretrained=pretrained, seed=1, precision="fp32",
        )  # fmt: skip
        assert torch.equal(statistics, network.encoder.bn1.running_mean) == pretrained
        held = np.arange(64, 96)
        said = finetune.logits(network, encoder, store, held, labels[64:], "fp32")
        found.append(np.mean(said.argmax(1).numpy() == labels[64:]))
    assert found[0] > 0.9 and found[0] == found[1]
    assert encoder.fingerprint() == before


def test_networks_from_scratch_do_not_know_the_pretrained_weights(case):
    encoder = case[0]
    one = finetune.fresh(encoder, 2, pretrained=False, seed=1).encoder.conv1.weight
    two = finetune.fresh(encoder, 2, pretrained=False, seed=2).encoder.conv1.weight
    kept = finetune.fresh(encoder, 2, pretrained=True, seed=2).encoder.conv1.weight
    assert torch.equal(kept, encoder.encoder.conv1.weight) and not torch.equal(one, two)
    assert not torch.equal(one, kept)


def test_effort_fits_the_time_or_is_nothing():
    full = finetune.effort(1000, 1e9)
    assert full.epochs >= 20 and full.samples <= core.MOST_SAMPLES * 1.01
    less = finetune.effort(1000, full.samples * 0.9)
    assert less.steps == max(full.steps // 2, 157) and less.samples <= full.samples * 0.9
    assert less.epochs >= core.LEAST_EPOCHS
    assert finetune.effort(1000, 9000) is None  # ten passes do not fit
    assert finetune.effort(10, 1e9).batch == 10
    half = finetune.effort(1000, 1e9).of(500)
    assert half.epochs == pytest.approx(full.epochs, rel=0.05)


@pytest.mark.parametrize("third", [0.7, 0.9])
def test_rate_and_views_are_chosen_on_labels_that_are_not_trained_on(case, monkeypatch, third):
    encoder, store, labels = case
    seen, scored = [], []

    def note_training(network, encoder, part, **settings):
        seen.append(set(part.rows.tolist()))

    def note_scoring(network, encoder, part):
        scored.append(set(part.rows.tolist()))
        return np.array([{2: 0.8, 3: third}.get(len(scored), 0.0)])

    monkeypatch.setattr(tasks, "train", note_training)
    monkeypatch.setattr(tasks, "outcomes", note_scoring)
    found = finetune.choose(
        encoder, store, np.arange(40), labels[:40], 2, effort=finetune.Effort(40, 10),
        pretrained=False, seed=0,
    )  # fmt: skip
    assert found.rate == tasks.SCRATCH_RATES[1]  # the second did better
    assert found.light == (third < 0.8) and len(scored) == finetune.TRIALS == 3
    assert all(a.isdisjoint(b) and len(a | b) == 40 for a, b in zip(seen, scored, strict=True))


def test_what_networks_note_of_a_sample():
    """For the area under the curve how sure they are; to choose by, where a class is rare, more
    than whether they are right."""
    out, y = torch.tensor([[0.0, 2.0], [3.0, 0.0]]), torch.tensor([1, 1])
    assert finetune.Scored(["0", "1"]).outcome(out, y).tolist() == out.tolist()
    right, wrong = finetune.Likely(["0", "1"]).outcome(out, y)
    assert right == pytest.approx(-np.log1p(np.exp(-2))) and wrong == pytest.approx(
        -np.log1p(np.exp(3))
    )
