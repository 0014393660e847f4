import pytest
import torch
from fixed import waves
from test_contract import build

from selfsup import methods
from selfsup.errors import SelfsupError
from selfsup.language import Language
from selfsup.ragged import Ragged


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
