import torch
from fixed import fill, waves
from test_contract import build

from selfsup import masks
from selfsup.encoder import Encoder
from selfsup.methods import SimMIM
from selfsup.stems import Patches


def test_loss_against_a_slow_reading():
    method, (x,) = build("SimMIM", "image")
    hidden = masks.cells(0.5, 2)(8, (4, 4))
    method.mask = lambda batch, grid, device: hidden
    final, _ = method.rebuild(x, hidden)
    total, count = 0.0, 0
    for b in range(8):
        for n in range(16):
            if hidden[b, n]:
                y, c = divmod(n, 4)
                patch = x[b, :, 4 * y : 4 * y + 4, 4 * c : 4 * c + 4].flatten()
                predicted = method.values.weight @ final[b, n] + method.values.bias
                total += (predicted - patch).abs().sum()
                count += len(patch)
    terms = method([x], 0.0)
    torch.testing.assert_close(terms["reconstruction"], total / count, atol=1e-5, rtol=1e-5)


def test_loss_against_another_implementation():
    """transformers 5.23.0, ViTForMaskedImageModeling; its decoder says `guess`."""
    method, _ = build("SimMIM", "image")
    x, guess = waves(0.3, 2, 3, 16, 16), waves(1.9, 2, 3, 16, 16)
    hidden = waves(0.6, 2, 16).argsort(1).argsort(1) >= 4
    method.mask = lambda batch, grid, device: hidden
    said = masks.take(method.encoder.stem.patches(guess), hidden)
    method.rebuild = lambda x, hidden: (torch.zeros(2, 16, 24), said)
    found = method([x], 0.0)["reconstruction"]
    torch.testing.assert_close(found, torch.tensor(0.9130282998), atol=1e-5, rtol=1e-5)


def test_a_whole_step_against_the_authors_code():
    """SimMIM at 0e71746, models/simmim.py and vision_transformer.py, the same numbers put into both
    networks; no place for the cls token, no relative positions."""
    encoder = Encoder(Patches((16, 16), (4, 4), 3, 24), dim=24, depth=2, heads=2, cls=True)
    method = SimMIM(encoder)
    fill(method, 0.0)
    hidden = waves(0.6, 2, 16).argsort(1).argsort(1) >= 6
    method.mask = lambda batch, grid, device: hidden
    found = method([waves(0.3, 2, 3, 16, 16) * waves(1.0, 16, 1)], 0.0)["reconstruction"]
    torch.testing.assert_close(found, torch.tensor(0.7467582226), atol=1e-5, rtol=1e-5)


def test_hidden_values_are_never_seen_and_alone_are_scored():
    method, (x,) = build("SimMIM", "image")
    hidden = masks.cells(0.5, 2)(8, (4, 4))
    stem = method.encoder.stem
    other = stem.patches(x)
    other[hidden] += 1.0
    for a, b in zip(method.rebuild(x, hidden), method.rebuild(stem.unpatch(other), hidden)):
        torch.testing.assert_close(a, b)
    method.mask = lambda batch, grid, device: hidden
    outputs = []
    handle = method.encoder.trunk.register_forward_hook(lambda m, i, out: outputs.append(out))
    loss = method([x], 0.0)["reconstruction"]
    handle.remove()
    (gradient,) = torch.autograd.grad(loss, outputs)
    assert torch.equal(gradient.abs().sum(-1) > 0, hidden)


def test_hidden_tokens_have_their_places_and_the_learned_token():
    method, (x,) = build("SimMIM", "image")
    hidden = masks.cells(0.5, 2)(8, (4, 4))
    seen = []
    method.encoder.trunk.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    method.rebuild(x, hidden)
    expected = (method.blank + method.encoder.positions).expand(8, -1, -1)
    torch.testing.assert_close(seen[0][hidden], expected[hidden])
    torch.testing.assert_close(seen[0][~hidden], method.encoder.tokens(x)[~hidden])


def test_show_rebuilds_hidden_cells_alone():
    method, (x,) = build("SimMIM", "image")
    hidden = masks.cells(0.5, 2)(8, (4, 4))
    method.mask = lambda batch, grid, device: hidden
    original, seen, rebuilt = method.show([x]).values()
    patches = method.encoder.stem.patches
    assert torch.equal(original, x)
    assert torch.equal(patches(rebuilt)[~hidden], patches(x)[~hidden])
    assert patches(seen)[hidden].abs().sum() == 0
