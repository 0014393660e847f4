import torch
from fixed import waves
from test_contract import build


def fix(method, seen, lost):
    """Leave those of 16 tokens, of which those, counted among the seen, lost their places."""
    method.mask = lambda batch, grid, device: (
        ~torch.tensor([n in seen for n in range(16)])
    ).expand(batch, 16)
    method.lost = len(lost) / len(seen)


def test_loss_against_a_slow_reading(monkeypatch):
    method, (x,) = build("Jigsaw", "image")
    seen, lost = [1, 4, 5, 9, 10, 15], [0, 2, 3]
    fix(method, seen, lost)
    order = torch.tensor([0.1, 0.9, 0.2, 0.3, 0.8, 0.7])
    # argsort gives where each rank comes from: ranks below three are the lost places
    back = order.argsort().argsort().float()
    monkeypatch.setattr("selfsup.distributed.rand", lambda b, n, device=None: back.expand(b, n))
    method.blank.data.normal_()
    lost = [i for i in range(6) if back.argsort()[i] < 3]
    tokens = []
    for i, n in enumerate(seen):
        place = method.blank if i in lost else method.encoder.positions[n]
        tokens.append(method.encoder.embed(x)[:, n] + place)
    final = method.encoder.trunk(torch.stack(tokens, 1))
    total = 0.0
    for b in range(8):
        for i in lost:
            total -= method.places(final[b, i]).log_softmax(0)[seen[i]] / (8 * 3)
    torch.testing.assert_close(method([x], 0.0)["places"], total, atol=1e-5, rtol=1e-5)


def test_loss_against_the_authors_code(monkeypatch):
    """DropPos at 9cbc5fe, models_DropPos_mae.py: forward_drop_pos_loss, labels not smoothed and
    all pieces alike."""
    method, (x,) = build("Jigsaw", "image")
    gone = torch.ones(2, 16, dtype=torch.bool)
    for b, places in enumerate(([1, 4, 5, 9, 10, 15], [0, 2, 3, 7, 8, 12])):
        gone[b, places] = False
    lost = torch.tensor([[1, 0, 1, 1, 0, 0], [0, 1, 0, 1, 1, 0]], dtype=torch.bool)
    method.mask, method.lost = lambda batch, grid, device: gone, 0.5
    draws = (~lost).int().argsort(dim=1, stable=True).float()  # ranks below three where lost
    monkeypatch.setattr("selfsup.distributed.rand", lambda b, n, device=None: draws)
    method.places.forward = lambda final: waves(0.3, 2, 6, 16)[lost]
    found = method([x[:2]], 0.0)["places"]
    torch.testing.assert_close(found, torch.tensor(2.9813928604), atol=1e-5, rtol=1e-5)


def test_the_place_of_a_piece_cannot_be_known_but_from_what_it_shows():
    """Pieces that show the same get the same answer, wherever they come from."""
    method, _ = build("Jigsaw", "image")
    x = method.encoder.stem.unpatch(torch.randn(1, 1, 48).expand(8, 16, 48))
    said = []
    method.places.register_forward_hook(lambda m, i, out: said.append(out))
    method([x], 0.0)
    rows = said[0].view(8, -1, 16)
    assert rows.shape[1] > 1
    torch.testing.assert_close(rows, rows[:, :1].expand_as(rows), atol=1e-4, rtol=1e-4)


def test_how_many_are_gone_and_lost():
    method, (x,) = build("Jigsaw", "image")
    seen, said = [], []
    method.encoder.trunk.register_forward_pre_hook(lambda m, args: seen.append(args[0].shape))
    method.places.register_forward_hook(lambda m, i, out: said.append(out.shape))
    method([x], 0.0)
    assert seen == [(8, 8, 24)] and said == [(48, 16)]  # of 16 half are gone, of 8 six are lost


def test_tokens_that_are_gone_are_never_seen():
    method, (x,) = build("Jigsaw", "image")
    fix(method, [0, 1, 2, 3, 8], [0])
    x.requires_grad_()
    method([x], 0.0)["places"].backward()
    gradient = method.encoder.stem.patches(x.grad).abs().sum((0, 2))
    assert (gradient > 0).nonzero().flatten().tolist() == [0, 1, 2, 3, 8]
