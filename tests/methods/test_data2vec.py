import torch
from test_contract import build
from torch.nn.functional import layer_norm


def test_the_target_is_the_mean_of_normalised_layers():
    method, views = build("Data2Vec", "image")
    outputs = []
    for block in method.teacher.slow.trunk.blocks:
        block.mlp.register_forward_hook(lambda m, i, out: outputs.append(out))
    found = method.target(views[0])
    with torch.no_grad():
        method.teacher(views[0])  # as the encoder itself goes through its blocks
    assert len(outputs) == 4
    expected = sum(layer_norm(y, (24,)) for y in outputs[2:]) / 2
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert not found.requires_grad
    method.layers = 1
    torch.testing.assert_close(method.target(views[0]), layer_norm(outputs[3], (24,)))


def test_loss_against_a_slow_reading():
    method, views = build("Data2Vec", "image")
    hidden = torch.zeros(8, 16, dtype=torch.bool)
    hidden[:, 2] = hidden[:, 9] = True
    method.mask = lambda batch, grid, device: hidden
    seen = []
    method.regress.register_forward_hook(lambda m, i, out: seen.append(out.detach()))
    method.target = lambda x: torch.full((8, 16, 24), 1.5)  # on both sides of beta
    loss = method(views, 0.5)["regression"]
    total, away = 0.0, (seen[0] - 1.5).abs().flatten().tolist()
    assert min(away) < 2 < max(away)
    for a in away:
        total += (a**2 / 4 if a < 2 else a - 1) / len(away)
    torch.testing.assert_close(loss.detach(), torch.tensor(total))


def test_hidden_tokens_are_never_seen_and_only_they_are_regressed():
    method, views = build("Data2Vec", "image")
    hidden = torch.zeros(8, 16, dtype=torch.bool)
    hidden[:, 4:12] = True
    method.mask = lambda batch, grid, device: hidden
    rows = []
    method.regress.register_forward_hook(lambda m, i, out: rows.append(len(out)))
    x = views[0].requires_grad_()
    method([x], 0.5)["regression"].backward()
    gradient = method.encoder.stem.patches(x.grad).abs().sum(-1)
    assert rows == [64]
    assert (gradient[hidden] == 0).all() and (gradient[~hidden] > 0).all()
