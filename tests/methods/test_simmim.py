import torch
from test_contract import build


def test_loss_is_over_hidden_tokens_alone():
    method, views = build("SimMIM", "image")
    hidden = torch.zeros(8, 16, dtype=torch.bool)
    hidden[:, 3] = hidden[0, 7] = True
    method.mask = lambda batch, grid, device: hidden
    _, predicted = method.rebuild(views[0], hidden)
    patches = method.encoder.stem.patches(views[0])
    total, count = 0.0, 0
    for i in range(8):
        for j in range(16):
            if hidden[i, j]:
                total, count = total + (predicted[i, j] - patches[i, j]).abs().mean(), count + 1
    torch.testing.assert_close(method(views, 0.5)["reconstruction"], total / count)


def test_hidden_tokens_are_never_seen():
    method, views = build("SimMIM", "image")
    hidden = method.mask(8, (4, 4), None)
    x = views[0].requires_grad_()
    latent, _ = method.rebuild(x, hidden)
    latent.square().sum().backward()
    gradient = method.encoder.stem.patches(x.grad).abs().sum(-1)
    assert (gradient[hidden] == 0).all() and (gradient[~hidden] > 0).all()


def test_the_mask_token_is_where_tokens_are_hidden():
    method, views = build("SimMIM", "image")
    hidden = method.mask(8, (4, 4), None)
    seen = []
    method.encoder.trunk.register_forward_hook(lambda m, i, out: seen.append(i[0]))
    method.rebuild(views[0], hidden)
    expected = (method.mask_token + method.encoder.positions).expand(8, 16, -1)
    torch.testing.assert_close(seen[0][hidden], expected[hidden])
