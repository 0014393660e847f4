import pytest
import torch
from fixed import fill, waves
from test_contract import build, run

from selfsup import masks, methods
from selfsup.encoder import Encoder
from selfsup.errors import SelfsupError
from selfsup.stems import Patches


def fixed(method, *pairs):
    method.masks = [lambda batch, grid, device, pair=pair: pair for pair in pairs]


def parts(b, n, visible, asked):
    rank = torch.rand(b, n).argsort(1).argsort(1)
    return rank < visible, rank >= n - asked


def errors(method, x, seen, foretold):
    """What each foretold number is wrong by, sample by sample and place by place."""
    found = []
    for b in range(len(x)):
        full = method.teacher.slow.features(x[b : b + 1])[0]
        tokens = method.encoder.embed(x[b : b + 1])[0] + method.encoder.positions
        z = method.encoder.trunk(tokens[seen[b]][None])
        predictor = method.predictor
        known = predictor.narrow(z[0]) + predictor.positions[seen[b]]
        asked = predictor.blank + predictor.positions[foretold[b]]
        said = predictor.wide(predictor.trunk(torch.cat([known, asked])[None])[0, len(known) :])
        for row, n in enumerate(foretold[b].nonzero()[:, 0].tolist()):
            y = full[n]
            y = (y - y.mean()) / (y.var(correction=0) + 1e-5).sqrt()
            found.append((said[row] - y).abs())
    return torch.stack(found)


def test_loss_against_a_slow_reading():
    method, (x,) = build("JEPA", "video")
    for part in (method.teacher.slow.positions, method.teacher.slow.trunk.norm.weight):
        torch.nn.init.normal_(part, std=0.5)  # no longer the student
    seen, foretold = parts(8, 8, 3, 4)
    fixed(method, (seen, foretold))
    error = errors(method, x, seen, foretold)
    total = torch.where(error < 1, 0.5 * error**2, error - 0.5).mean()
    torch.testing.assert_close(method([x], 0.3)["prediction"], total, atol=1e-5, rtol=1e-5)


def test_two_masks_count_alike_by_the_l1_error_after_one_pass_of_the_teacher():
    _, (x,) = build("JEPA", "video")
    encoder = Encoder(Patches((4, 16, 16), (2, 8, 8), 3, 24), dim=24, depth=2, heads=2)
    small = {"predictor_dim": 24, "predictor_depth": 1, "predictor_heads": 2}
    method = methods.JEPA(encoder, long_blocks=2, error="l1", **small)
    assert len(method.masks) == 2
    torch.nn.init.normal_(method.teacher.slow.positions, std=0.5)
    pairs = parts(8, 8, 5, 2), parts(8, 8, 1, 6)  # of different sizes
    fixed(method, *pairs)
    expected = sum(errors(method, x, *pair).mean() for pair in pairs) / 2
    passes = []
    method.teacher.slow.trunk.register_forward_hook(lambda m, i, out: passes.append(len(out)))
    loss = method([x], 0.3)["prediction"]
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    assert passes == [8]


def test_a_whole_step_against_the_authors_code():
    """ijepa at 52c1ae9, src/train.py and src/models/vision_transformer.py, the same numbers put
    into both networks: encoder, teacher and predictor of one block."""
    torch.manual_seed(0)
    encoder = Encoder(Patches((16, 16), (4, 4), 3, 24), dim=24, depth=2, heads=2)
    method = methods.JEPA(encoder, predictor_dim=12, predictor_depth=1, predictor_heads=2)
    fill(method, 0.0)
    fill(method.teacher, 1.0)
    seen, foretold = torch.zeros(2, 2, 16, dtype=torch.bool)
    for b, places in enumerate(([0, 1, 4, 5, 8], [2, 3, 7, 11, 15])):
        seen[b, places] = True
    for b, places in enumerate(([10, 11, 14, 15], [8, 9, 12, 13])):
        foretold[b, places] = True
    fixed(method, (seen, foretold))
    found = method([waves(0.3, 2, 3, 16, 16)], 0.0)["prediction"]
    torch.testing.assert_close(found, torch.tensor(0.3567176163), atol=1e-5, rtol=1e-5)


def test_two_masks_against_the_authors_code():
    """jepa (V-JEPA), app/vjepa/train.py: forward_target and loss_fn, loss_exp 1."""
    method, (x,) = build("JEPA", "video")
    method.error = torch.nn.functional.l1_loss
    method.teacher.slow.features = lambda x: waves(0.4, 2, 8, 24)
    asked = torch.zeros(2, 2, 8, dtype=torch.bool)
    for part, rows in zip(asked, ([[0, 3], [5, 6]], [[1, 2, 4, 7], [0, 1, 2, 3]]), strict=True):
        for b, places in enumerate(rows):
            part[b, places] = True
    fixed(method, *((~part, part) for part in asked))
    said = iter((waves(1.9, 2, 2, 24), waves(0.9, 2, 4, 24)))
    method.predictor.forward = lambda *_: next(said)
    found = method([x[:2]], 0.0)["prediction"]
    torch.testing.assert_close(found, torch.tensor(0.8855946064), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("grid", [(2, 4, 4), (8, 8, 8), (4, 2, 2), (12,)])
def test_large_blocks_leave_something_to_see_and_go_all_along_the_first_axis(grid):
    draw = masks.multiblock(2, (0.7, 0.7), (0.75, 1.5), (1.0, 1.0))
    shares = []
    for seed in range(40):
        torch.manual_seed(seed)
        seen, foretold = draw(32, grid)  # as many in each row as the row with the fewest has
        assert seen.any(1).all() and not (seen & foretold).any()
        seen, foretold = draw(1, grid)
        assert torch.equal(seen, ~foretold)
        shares.append(foretold.float().mean())
        if len(grid) == 3:
            assert (foretold.view(grid) == foretold.view(grid)[:1]).all()
    assert max(shares) > 0.74 or grid[-1] == 2  # two large blocks cover more than one
    assert min(shares) > 0.45 and max(shares) < 0.95


@pytest.mark.parametrize("kind", ["series", "image", "video"])
def test_what_is_not_seen_reaches_the_prediction_through_the_teacher_alone(kind):
    method, (x,) = build("JEPA", kind)
    n = len(method.encoder.positions)
    seen, foretold = parts(8, n, 3, 2)
    fixed(method, (seen, foretold))
    found = []
    method.predictor.register_forward_hook(lambda m, i, out: found.append(out))
    other = method.encoder.stem.patches(x)
    other[~seen] += 1.0
    first, second = method([x], 0.0), method([method.encoder.stem.unpatch(other)], 0.0)
    torch.testing.assert_close(found[0], found[1])
    assert first["prediction"] != second["prediction"]  # the target did change
    found.clear()
    method([x], 0.0)
    method.predictor.zero_grad()
    tokens = []
    handle = method.encoder.trunk.register_forward_hook(lambda m, i, out: tokens.append(out))
    sum(method([x], 0.0).values()).backward()
    handle.remove()
    assert tokens[0].shape[1] == 3  # the encoder computes no hidden token
    assert all(p.grad is None for p in method.teacher.parameters())


def test_targets_are_told_apart_by_their_places():
    method, _ = build("JEPA", "image")
    seen, foretold = parts(8, 16, 4, 5)
    z = torch.randn(8, 4, method.encoder.dim)
    found = method.predictor(z, seen, foretold)
    assert found.std(1).min() > 0
    blind = method.predictor
    blind.positions.zero_()
    assert blind(z, seen, foretold).std(1).max() < 1e-5


def test_the_teacher_follows_more_and_more_slowly():
    method, _ = build("JEPA", "image")
    start = method.teacher.slow.positions.clone()
    with torch.no_grad():
        method.encoder.positions.add_(1.0)
    method.after_step(0.5)  # 0.9 at the start, 1 at the end, linearly
    torch.testing.assert_close(method.teacher.slow.positions, start + 0.05)
    method.after_step(1.0)
    torch.testing.assert_close(method.teacher.slow.positions, start + 0.05)
    assert method.kept is method.teacher.slow


@pytest.mark.parametrize("grid", [(24,), (1, 24), (8, 8), (14, 14), (6, 6, 6), (8, 4, 4)])
def test_blocks(grid):
    draw = masks.multiblock(4, (0.15, 0.2), (0.75, 1.5), (0.85, 1.0))
    n = torch.Size(grid).numel()
    shares = []
    for seed in range(20):
        torch.manual_seed(seed)
        seen, foretold = draw(64, grid)
        assert not (seen & foretold).any()
        for part in (seen, foretold):
            assert part.sum(1).unique().numel() == 1 and part.any()
        shares.append(foretold[0].sum() / n)
        where = foretold.any(0).float().mean()
        assert where > 0.9  # anywhere
    assert 0.15 < sum(shares) / len(shares) < 0.6


def test_one_block_is_a_block_and_goes_all_along_the_first_axis():
    torch.manual_seed(0)
    _, foretold = masks.multiblock(1, (0.2, 0.2), (1.0, 1.0), (1.0, 1.0))(16, (4, 10, 10))
    foretold = foretold.view(16, 4, 10, 10)
    assert (foretold == foretold[:, :1]).all()
    for plane in foretold[:, 0]:
        rows, columns = plane.any(1), plane.any(0)
        assert plane.sum() == rows.sum() * columns.sum() == 20
        for line, length in ((rows, 4), (columns, 5)):
            where = line.nonzero()[:, 0]
            assert len(where) == where[-1] - where[0] + 1 == length


def test_the_next_slice_is_foretold_from_all_before_it():
    draw, found = masks.following(), set()
    for seed in range(40):
        torch.manual_seed(seed)
        seen, foretold = draw(3, (5, 2, 2))
        slices = foretold[0].view(5, 4)
        now = int(slices.any(1).nonzero()[0, 0])
        assert slices[now].all() and foretold.sum() == 3 * 4
        assert torch.equal(seen[0].view(5, 4).all(1), torch.arange(5) < now)
        found.add(now)
    assert found == {1, 2, 3, 4}
    seen, foretold = draw(2, (1, 6))  # along the axis that has several places
    assert foretold.sum() == 2 and seen[0].sum() == foretold[0].int().argmax()


def test_what_comes_next_is_foretold_without_what_follows_it():
    torch.manual_seed(0)
    encoder = Encoder(Patches((6, 8, 8), (2, 4, 4), 3, 24), dim=24, depth=2, heads=2)
    method = methods.JEPA(
        encoder, mask="next", predictor_dim=24, predictor_depth=1, predictor_heads=2
    )
    torch.nn.init.normal_(method.teacher.slow.positions)
    x, stem = torch.randn(2, 3, 6, 8, 8), encoder.stem
    place = torch.arange(12).expand(2, -1) // 4
    seen, foretold = place < 1, place == 1
    fixed(method, (seen, foretold))
    loss = method([x], 0.0)["prediction"]
    for changed, same in ((place > 1, True), (foretold, False), (seen, False)):
        other = stem.patches(x)
        other[changed] += 1.0
        found = method([stem.unpatch(other)], 0.0)["prediction"]
        assert torch.equal(found, loss) == same
    latents, (target,) = method.targets(
        x, [(seen, foretold)]
    )  # of a clip that ends with its target
    slow = method.teacher.slow
    tokens = (slow.embed(x) + slow.positions)[:, :8]
    expected = slow.trunk(tokens)
    torch.testing.assert_close(latents, expected)
    torch.testing.assert_close(target, torch.nn.functional.layer_norm(expected[:, 4:], (24,)))


def test_next_learns_and_small_grids_are_refused():
    torch.manual_seed(0)
    encoder = Encoder(Patches((6, 4, 4), (2, 4, 4), 3, 24), dim=24, depth=1, heads=2)
    method = methods.JEPA(
        encoder, mask="next", predictor_dim=24, predictor_depth=1, predictor_heads=2
    )
    losses = run(method, [torch.randn(8, 3, 6, 4, 4)], 60, time_stands=True)
    assert sum(losses[-20:]) < 0.97 * sum(losses[:20])  # another slice each time
    with pytest.raises(SelfsupError, match="E202"):
        masks.multiblock(4, (0.15, 0.2), (1, 1), (1, 1))(2, (3,))
    with pytest.raises(SelfsupError, match="E201"):
        masks.multiblock(4, (0.5, 0.6), (1, 1), (0.5, 1))
    with pytest.raises(SelfsupError, match="E202"):
        masks.following()(2, (1, 1))
