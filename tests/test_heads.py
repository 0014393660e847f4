import torch

from selfsup.heads import Prototypes


def test_prototypes_turn_as_fast_as_the_authors_do():
    """They start as a linear layer does; longer ones would turn by a fraction of a degree."""
    torch.manual_seed(0)
    dim, count = 256, 64
    ours = Prototypes(dim, count)
    theirs = torch.nn.Linear(dim, count, bias=False)  # its default range is MSN's, too
    assert ours.directions.abs().max() <= dim**-0.5
    torch.testing.assert_close(ours.directions.std(), theirs.weight.std(), atol=0.0, rtol=0.05)
    before = ours.directions.detach().clone()
    x, wanted = torch.randn(32, dim), torch.randint(count, (32,))
    optimizer = torch.optim.AdamW(ours.parameters(), lr=5e-4)
    for _ in range(10):
        loss = torch.nn.functional.cross_entropy(ours(x) / 0.1, wanted)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    turned = torch.cosine_similarity(before, ours.directions, dim=1).acos().rad2deg()
    assert turned.mean() > 4
