"""GraphMAE: what is hidden stays hidden, and the loss is the paper's."""

from dataclasses import replace

import pytest
import torch
from fixed import ONE, waves
from test_graph import WIDTH, graphs
from torch.nn.functional import cosine_similarity

from selfsup.graph import network
from selfsup.methods import GraphMAE
from selfsup.methods.graphmae import scaled_cosine, unseen


def method(**settings) -> GraphMAE:
    torch.manual_seed(0)
    return GraphMAE(network("gat", WIDTH, dim=8, heads=2), **settings)


def test_loss_is_equation_2():
    z, x = torch.randn(5, 7), torch.randn(5, 7)
    slow = 0.0
    for a, b in zip(z, x, strict=True):
        slow += (1 - (a @ b / (a.norm() * b.norm()))) ** 3 / 5
    found = scaled_cosine(cosine_similarity(z, x), 3.0).mean()
    torch.testing.assert_close(found, slow, atol=1e-5, rtol=1e-5)
    found = scaled_cosine(cosine_similarity(ONE, waves(2.0, 6, 4)), 3.0).mean()
    # sce_loss of graphmae/models/loss_func.py, alpha 3, as in Haldate-Yu/GraphMAE at 2531136
    torch.testing.assert_close(found, torch.tensor(2.3284881115), atol=1e-5, rtol=1e-5)


def test_loss_against_a_slow_reading():
    """Each hidden node's own values are the target, whatever it showed; over the hidden alone."""
    model, x = method(noise=0.3), graphs((9, 1, 12))
    torch.nn.init.normal_(model.decoder.project.bias)  # of a lone hidden node nothing else is said
    torch.manual_seed(1)
    found = model([x], 0.0)
    torch.manual_seed(1)
    hidden, blank, shown = model.mask(x)
    assert not torch.equal(shown.dense(), x.dense()) and (hidden & ~blank).any()
    h = model.between(model.encoder.nodes(shown, blank, model.token))
    z = model.decoder(torch.where(hidden[:, None], 0.0, h), x)
    total, count = 0.0, 0
    for i, own in enumerate(x.dense()):
        if hidden[i]:
            cosine = z[i] @ own / (z[i].norm() * own.norm()) if own.any() else 0.0
            total += (1 - cosine) ** 3
            count += 1
    assert list(found) == ["reconstruction"] and count == 11
    torch.testing.assert_close(found["reconstruction"], total / count, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("sharpness", [1.0, 2.0, 3.0])
def test_no_answer_for_all_is_better_than_the_one_that_the_monitor_is_told(sharpness):
    x = graphs((30, 30))
    x = replace(x, values=x.values + 2.0 * (x.columns == 1))  # something is common
    hidden = waves(0.7, 60) > 0
    found = unseen(x, hidden, sharpness)
    own, answer = x.dense()[hidden], torch.ones(WIDTH, requires_grad=True)
    optimizer = torch.optim.Adam([answer], lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        best = scaled_cosine(cosine_similarity(own, answer[None]), sharpness).mean()
        best.backward()
        optimizer.step()
    torch.testing.assert_close(found, best.detach(), atol=0, rtol=0.004)
    model = method(sharpness=sharpness)
    model([x], 0.0)
    assert best < 0.9 and 0 < model.chance["reconstruction"] < 0.9


def test_masks_have_the_sizes_of_the_paper():
    x = graphs((60,))
    model = method(ratio=0.5, noise=0.1)
    hidden, blank, shown = model.mask(x)
    assert hidden.sum() == 30 and blank.sum() == 27 and not (blank & ~hidden).any()
    noisy = hidden & ~blank
    changed = (shown.dense() != x.dense()).any(1)
    assert not (changed & ~noisy).any()  # all others show what is known of themselves
    for n in (1, 2, 3):
        hidden, _, _ = method(ratio=0.9).mask(graphs((n,)))
        assert hidden.sum() >= 1 and (n == 1 or not hidden.all())


def test_others_whose_values_are_shown_are_of_the_same_graph():
    x = graphs((30, 2, 40))
    near = replace(x, values=x.values + 10 * x.graph[x.owner])  # values tell the graph
    _, blank, shown = method(ratio=1.0, noise=1.0).mask(near)
    assert not blank.any() and not torch.equal(shown.dense(), near.dense())
    told = (shown.dense().amax(1) // 10).long()  # 0 of the first graph, and where nothing is known
    assert torch.equal(told[told > 0], x.graph[told > 0]) and (told > 0).sum() > 20


def test_what_is_hidden_is_never_seen():
    """Neither the encoder nor the decoder may know the values that are to be found out."""
    x = graphs((40,))
    model = method(noise=0.0).eval()
    torch.manual_seed(1)
    hidden, blank, shown = model.mask(x)
    values = x.values.clone().requires_grad_()
    again = replace(shown, values=values)
    h = model.between(model.encoder.nodes(again, blank, model.token)) * ~hidden[:, None]
    predicted = model.decoder(h, x)[hidden]
    (gradient,) = torch.autograd.grad(predicted.sum(), values)
    assert not gradient[hidden[x.owner]].any() and gradient[~hidden[x.owner]].any()


def test_the_decoder_never_gets_the_code_of_a_hidden_node():
    x = graphs((40,))
    model = method(noise=0.0).eval()
    seen = {}
    original = model.decoder.cosine

    def spy(h, graphs):
        seen["h"] = h
        return original(h, graphs)

    model.decoder.cosine = spy
    torch.manual_seed(1)
    model([x], 0.0)
    torch.manual_seed(1)
    hidden, _, _ = model.mask(x)
    assert not seen["h"][hidden].any() and seen["h"][~hidden].any()


def test_show_rebuilds_hidden_nodes_and_tells_how_near():
    torch.manual_seed(0)
    x, m = graphs(), method()
    original, seen, rebuilt, guesses = m.show([x]).values()
    known = x.dense()
    hidden = (seen.dense() == 0).all(1) & (known != 0).any(1)
    assert hidden.any() and torch.equal(rebuilt.dense()[~hidden], known[~hidden])
    assert guesses.of >= hidden.sum() and original is x
    first = x.sizes.cumsum(0) - x.sizes
    for graph, row in enumerate(guesses.rows):
        for guess in row:
            node = int(first[graph]) + guess.place
            assert guess.true == known[node].nonzero()[:, 0].tolist()
            assert guess.guessed == rebuilt.dense()[node].nonzero()[:, 0].tolist()
            cosine, right = guess.note.removeprefix("cosine ").split(", ")
            both = set(guess.true) & set(guess.guessed)
            assert -1 <= float(cosine) <= 1 and right == f"{len(both)} of {len(guess.true)}"


def test_show_of_a_network_tells_of_the_nodes_that_are_looked_at():
    x = replace(graphs(), rows=torch.tensor([2, 5]))
    (guesses,) = method().show([x]).values()
    assert [guess.place for (guess,) in guesses.rows] == x.place[x.rows].tolist()
