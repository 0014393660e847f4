import pytest
import torch
from fixed import waves
from test_contract import build

from selfsup import methods
from selfsup.errors import SelfsupError
from selfsup.language import Language
from selfsup.ragged import Ragged
from selfsup.stems import MASK, UNKNOWN


def test_loss_against_a_slow_reading():
    method, (x,) = build("CLM", "text")
    total, count = 0.0, 0
    for b in range(8):
        n = int(x.valid[b].sum())
        for i in range(1, n):  # each token from those before, and from nothing else
            before = x.values[b : b + 1, :i]
            states = method.encoder.features(Ragged(before, torch.ones_like(before, dtype=bool)))
            scores = method.encoder.stem.tokens @ states[0, -1]
            total -= scores.log_softmax(-1)[x.values[b, i]]
            count += 1
    found = method([x], 0.0)["next"]
    torch.testing.assert_close(found, total / count, atol=1e-5, rtol=1e-5)


def test_loss_against_another_implementation():
    """transformers 5.23.0, loss/loss_utils.py, ForCausalLMLoss; labels of padding are -100."""
    method, _ = build("CLM", "text")
    valid = torch.arange(5) < torch.tensor([5, 2, 4])[:, None]
    x = Ragged(torch.arange(15).view(3, 5) * 4 % 7, valid)
    method.encoder.features = lambda seen: waves(0.3, 3, 5, 7)[:, :-1]
    method.encoder.logits = lambda states: states
    found = method([x], 0.0)["next"]
    torch.testing.assert_close(found, torch.tensor(1.7334125042), atol=1e-5, rtol=1e-5)


def test_full_rows_give_what_padded_ones_give():
    method, (x,) = build("CLM", "text")
    full = Ragged(x.values[:, :3], x.valid[:, :3])
    padded = Ragged(torch.nn.functional.pad(full.values, (0, 4)), x.valid[:, :3].new_zeros(8, 7))
    padded.valid[:, :3] = True
    torch.testing.assert_close(method([full], 0.0)["next"], method([padded], 0.0)["next"])


def test_encoders_that_cannot():
    with pytest.raises(SelfsupError, match="E202"):
        methods.CLM(Language(16, 23, dim=24, depth=1, heads=2, causal=False))


def test_show_goes_on_from_the_middle_with_what_the_encoder_expects(monkeypatch):
    method, (x,) = build("CLM", "text")
    likeliest = lambda logits, temperature, top_p: logits.argmax()  # noqa: E731
    monkeypatch.setattr("selfsup.methods.clm.draw", likeliest)
    rows = method.show([x])["from the middle on"].rows
    for values, valid, (known, true, made) in zip(x.values, x.valid, rows, strict=True):
        assert known + true == values[valid].tolist() and len(made) == len(true) > 0
        for i, token in enumerate(made):  # without the cache of what came before
            so_far = Ragged.of([torch.tensor(known + made[:i])])
            scores = method.encoder.logits(method.encoder.features(so_far))[0, -1]
            scores[[MASK, UNKNOWN]] = -torch.inf
            assert int(scores.argmax()) == token
