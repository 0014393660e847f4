import pytest
import torch
from fixed import waves
from test_contract import build, texts

from selfsup import methods
from selfsup.errors import SelfsupError
from selfsup.language import Language
from selfsup.masks import choose, corrupt
from selfsup.ragged import Ragged
from selfsup.stems import END, MASK


def test_loss_against_a_slow_reading():
    method, (x,) = build("MLM", "text")
    torch.manual_seed(3)
    found = method([x], 0.0)["masked"]
    torch.manual_seed(3)
    chosen = choose(x, 0.3, method._draws(x))
    seen = corrupt(x.values, chosen, method._draws(x), method._draws(x), 23)
    total, count = 0.0, 0
    for b in range(8):
        n = int(x.valid[b].sum())
        states = method.encoder.features(Ragged(seen[b : b + 1, :n], x.valid[b : b + 1, :n]))[0]
        for i in range(n):
            if chosen[b, i]:
                hidden = method.norm(torch.nn.functional.gelu(method.dense(states[i])))
                scores = method.encoder.stem.tokens @ hidden + method.bias
                total -= scores.log_softmax(-1)[x.values[b, i]]
                count += 1
    torch.testing.assert_close(found, total / count, atol=1e-5, rtol=1e-5)


def test_loss_against_another_implementation():
    """transformers 5.23.0, loss/loss_utils.py, ForMaskedLMLoss; other tokens' labels are -100."""
    method, _ = build("MLM", "text")
    valid = torch.arange(5) < torch.tensor([5, 2, 4])[:, None]
    x = Ragged(torch.arange(15).view(3, 5) * 4 % 7, valid)
    method._choose = lambda x: x.valid & (torch.arange(15).view(3, 5) % 3 == 1)
    method.encoder.features = lambda seen: waves(0.3, 3, 5, 7)
    method.name = lambda states: states
    found = method([x], 0.0)["masked"]
    torch.testing.assert_close(found, torch.tensor(1.7135442495), atol=1e-5, rtol=1e-5)


def test_the_rule_of_eighty_ten_ten():
    torch.manual_seed(0)
    tokens = torch.randint(3, 1003, (200, 100))
    x = Ragged(tokens, torch.ones_like(tokens, dtype=torch.bool))
    chosen = choose(x, 0.15, torch.rand(200, 100))
    assert (chosen.sum(1) == 15).all()
    seen = corrupt(tokens, chosen, torch.rand(200, 100), torch.rand(200, 100), 1003)
    assert torch.equal(seen[~chosen], tokens[~chosen])
    share = [(seen[chosen] == MASK), (seen[chosen] == tokens[chosen])]
    hidden, kept = (s.float().mean().item() for s in share)
    assert hidden == pytest.approx(0.8, abs=0.02) and kept == pytest.approx(0.1, abs=0.02)
    other = seen[chosen][~share[0] & ~share[1]]
    assert other.min() >= 3 and other.max() > 990 and len(other.unique()) > 200


def test_special_tokens_and_padding_are_never_chosen_and_short_texts_are():
    rows = [torch.tensor([END, 5, END]), torch.tensor([END, 6, 7, 8, 9, 10, END])]
    x = Ragged.of(rows)
    for _ in range(20):
        chosen = choose(x, 0.3, torch.rand(2, 7))
        assert chosen[0].tolist() == [False, True, False, False, False, False, False]
        assert chosen[1].sum() == 2 and not chosen[1, [0, 6]].any()
    assert not choose(Ragged.of([torch.tensor([END, END])]), 0.3, torch.rand(1, 2)).any()


def test_whole_words_are_hidden_or_none_of_them():
    from selfsup.tokens import Pairs

    codec = Pairs([("a", "b"), ("c", "d"), ("Ġ", "ab"), ("ab", "cd")])
    rows = [codec.encode(t) for t in ("abc xyz, cd ab.Über 12a", "aaaa b cccc dddd ab", "ab")]
    rows = [torch.tensor([END, *row.tolist(), END]) for row in rows]
    x = Ragged.of(rows)
    starts = torch.from_numpy(codec.starts())[x.values]
    hidden, spread = 0, set()
    for _ in range(50):
        chosen = choose(x, 0.3, torch.rand(x.shape), starts)
        for b, row in enumerate(rows):
            words, signs = [], [codec.decode([t]) for t in row.tolist()]
            for i in range(1, len(row) - 1):
                if i == 1 or not (signs[i][0].isalnum() or signs[i][0] == "\ufffd"):
                    words.append([])
                words[-1].append(i)
            flags = [chosen[b, word].tolist() for word in words]
            assert all(len(set(flag)) == 1 for flag in flags)
            wanted = max(1, round(0.3 * (len(row) - 2)))
            assert wanted <= chosen[b].sum() < wanted + max(map(len, words))
            spread |= {(b, k) for k, flag in enumerate(flags) if flag[0]}
        hidden += int(chosen.sum())
        assert not chosen[~x.valid].any() and not chosen[x.values < 3].any()
    assert len(spread) == 7 + 5 + 1 and hidden > 0  # every word has its turn
    method, _ = build("MLM", "text")
    with pytest.raises(SelfsupError, match="E201"):
        methods.MLM(method.encoder, whole=True)


def test_only_scored_rows_have_a_gradient():
    method, (x,) = build("MLM", "text")
    outputs = []
    handle = method.encoder.norm.register_forward_hook(lambda m, i, out: outputs.append(out))
    torch.manual_seed(3)
    loss = method([x], 0.0)["masked"]
    handle.remove()
    torch.manual_seed(3)
    chosen = choose(x, 0.3, method._draws(x))
    (gradient,) = torch.autograd.grad(loss, outputs)
    assert int((gradient.abs().sum(-1) > 0).sum()) == int(chosen.sum())


def test_show_hides_and_names_the_same_tokens():
    method, (x,) = build("MLM", "text")
    original, seen, named, guesses = method.show([x]).values()
    hidden = seen.values == MASK
    assert hidden.any() and torch.equal(named.values[~hidden], original.values[~hidden])
    assert guesses.of == hidden.sum()
    assert guesses.right == (named.values == original.values)[hidden].sum()
    for b, row in enumerate(guesses.rows):
        assert [guess.place for guess in row] == hidden[b].nonzero()[:6, 0].tolist()
        for guess in row:
            assert guess.true == [original.values[b, guess.place]]
            assert guess.guessed[0] == named.values[b, guess.place] and len(guess.guessed) == 3
            shares = [int(part.removesuffix(" %")) for part in guess.note.split(", ")]
            assert shares == sorted(shares, reverse=True) and sum(shares) <= 102


def test_encoders_that_cannot():
    with pytest.raises(SelfsupError, match="E202"):
        methods.MLM(Language(16, 23, dim=24, depth=1, heads=2, causal=True))
    with pytest.raises(SelfsupError, match="E202"):
        methods.MLM(torch.nn.Linear(2, 2))
    assert len(texts(1)[0]) == 8
