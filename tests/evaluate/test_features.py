import numpy as np
import pytest
import small_encoder
import torch
from sklearn.decomposition import PCA

from selfsup.data import open_source, open_store
from selfsup.evaluate import controls, features
from selfsup.inference import Fast
from selfsup.load import LoadedEncoder, load


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    small_encoder.export(folder / "encoder")
    pictures = np.random.default_rng(0).integers(0, 255, (70, 16, 16, 3)).astype(np.uint8)
    encoder = load(folder / "encoder")
    return encoder, open_store(open_source(pictures), encoder.modality, 16), pictures


@pytest.mark.parametrize("most", [5, 256])
def test_principal_components_agree_with_scikit_learn(case, most, monkeypatch):
    encoder, store, _ = case
    monkeypatch.setattr(type(encoder.modality), "baseline_components", most)
    train, test = np.arange(50), np.arange(50, 70)
    x, z = features.baseline(encoder.modality, store, train, test)
    pixels = encoder.modality.baseline(store.batch(np.arange(70))).double().numpy()
    pca = PCA(min(most, 49), svd_solver="full").fit(pixels[:50])
    assert x.shape == (50, min(most, 49)) and z.shape == (20, min(most, 49))
    np.testing.assert_allclose(np.abs(x), np.abs(pca.transform(pixels[:50])), atol=1e-3)
    np.testing.assert_allclose(np.abs(z), np.abs(pca.transform(pixels[50:])), atol=1e-3)


def test_features_are_those_of_the_rows_asked_for(case, monkeypatch):
    encoder, store, pictures = case
    monkeypatch.setattr(features, "BATCH", 7)
    rows = np.array([60, 3, 3, 11, 0, 69, 12, 40, 41, 5])
    found = features.extract(encoder, store, rows)
    expected = torch.from_numpy(encoder.embed(pictures, precision="fp32"))[rows]
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()
    assert torch.equal(found[1], found[2])


def test_rounding_that_would_blur_features_is_noticed(case, monkeypatch):
    """Features that differ little beside their size are computed in float32."""
    encoder, store, _ = case
    monkeypatch.setattr("selfsup.machine.bf16_pays", lambda device: True)
    rows = np.arange(64)
    assert features.faithful(encoder, store, rows).precision == "bf16"

    class Lifted(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner, self.dim = inner, inner.dim

        def forward(self, x):
            return self.inner(x) + 100

    lifted = LoadedEncoder(Lifted(encoder.encoder), encoder.card, encoder.modality)
    assert features.faithful(lifted, store, rows).precision == "fp32"


def test_untrained_controls_see_the_whole_picture(case):
    """A residual network at its start is the sum of shortcuts, which look at few pixels."""
    encoder, _, pictures = case
    x = torch.stack([encoder.preprocess(p) for p in pictures[:4]]).requires_grad_()

    def seen(network):
        (slope,) = torch.autograd.grad(network(x).sum(), x)
        return (slope.abs().sum(1) > 0).float().mean().item()

    blind = encoder.untrained(1)
    assert seen(blind) < 0.2
    assert seen(controls.awake(blind)) > 0.9


def test_an_untrained_control_is_awake_and_is_not_the_encoder(case):
    encoder, store, pictures = case
    found, _ = controls.untrained(
        encoder, store, np.arange(20), np.arange(20, 30), 1, lambda text: None
    )
    awake = controls.awake(encoder.untrained(1))
    expected = torch.from_numpy(awake.embed(pictures[:20], precision="fp32"))
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()
    ours = torch.from_numpy(encoder.embed(pictures[:20], precision="fp32"))
    assert (found - ours).abs().max() > 0.2 * ours.abs().max()


def test_fast_leaves_the_encoder_as_it_was(case):
    encoder = case[0]
    before = encoder.fingerprint()
    encoder.train()
    fast = Fast(encoder.encoder, "bf16")
    assert encoder.encoder.training and not fast.encoder.training
    encoder.eval()
    assert encoder.fingerprint() == before
    out = fast(torch.randn(2, 3, 16, 16))
    assert out.dtype == torch.float32 and not out.is_inference()
