import torch
from fixed import ONE, OTHER
from test_contract import build

from selfsup import methods
from selfsup.encoder import resnet


def test_the_loss_is_symmetric_and_scaled_by_twice_the_temperature():
    method, _ = build("MoCoV3", "image")
    method.predictor.forward = lambda x: torch.cat([ONE, OTHER])
    method.teacher_projector.forward = lambda x: torch.cat([2 * OTHER + 0.1, ONE.flip(1)])
    k1, k2 = 2 * OTHER + 0.1, ONE.flip(1)
    total = 0.0
    for q, k in ((ONE, k2), (OTHER, k1)):
        for i in range(6):
            near = torch.exp(torch.cosine_similarity(q[i][None], k, dim=1) / 0.2)
            total -= (near[i] / near.sum()).log() / 6
    found = method([torch.randn(6, 3, 16, 16)] * 2, 0.5)["info_nce"]
    torch.testing.assert_close(found, 2 * 0.2 * total, atol=1e-5, rtol=1e-5)
    # authors' code at 0c5d00a, moco/builder.py: ctr_loss, T 0.2, on the same numbers
    torch.testing.assert_close(found, torch.tensor(1.7732733488), atol=1e-5, rtol=1e-5)


def test_no_gradient_flows_through_keys():
    method, views = build("MoCoV3", "image")
    keys = []
    method.teacher_projector.register_forward_hook(lambda m, i, out: keys.append(out))
    method(views, 0.5)
    assert not keys[0].requires_grad


def test_batch_norm_ends_the_predictor_but_for_resnets():
    method, _ = build("MoCoV3", "image")
    assert isinstance(method.predictor[-1], torch.nn.BatchNorm1d)
    assert isinstance(method.projector[-1], torch.nn.BatchNorm1d)
    method = methods.MoCoV3(resnet("resnet18", 16, width=0.125), hidden=16, dim=8)
    assert isinstance(method.predictor[-1], torch.nn.Linear)
    assert isinstance(method.projector[-1], torch.nn.BatchNorm1d)


def test_patches_stay_as_they_were_drawn():
    method, _ = build("MoCoV3", "image")
    assert not any(p.requires_grad for p in method.encoder.stem.parameters())
    assert method.encoder.positions.requires_grad
    method = methods.MoCoV3(resnet("resnet18", 16, width=0.125), hidden=16, dim=8)
    assert all(p.requires_grad for p in method.encoder.parameters())
