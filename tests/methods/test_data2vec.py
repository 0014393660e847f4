import torch
from test_contract import build

from selfsup import masks


def slow_target(encoder, x, layers):
    """Each block written out; the outputs of feed-forward parts before they are added."""
    stream, found = encoder.tokens(x), []
    for block in encoder.trunk.blocks:
        stream = stream + block.attn(block.norm1(stream))
        f = block.mlp(block.norm2(stream))
        stream = stream + f
        mean, var = f.mean(-1, keepdim=True), f.var(-1, unbiased=False, keepdim=True)
        found.append((f - mean) / (var + 1e-5).sqrt())
    return sum(found[-layers:]) / layers


def test_loss_against_a_slow_reading():
    method, (x,) = build("Data2Vec", "image")
    method.teacher.slow.positions.data.add_(0.3)  # a teacher that differs
    hidden = masks.blocks(0.6)(8, (4, 4))
    method.mask = lambda batch, grid, device: hidden
    tokens = method.encoder.embed(x)
    tokens = torch.where(hidden[..., None], method.blank, tokens) + method.encoder.positions
    predicted = method.predict(method.encoder.trunk(tokens))
    target = slow_target(method.teacher.slow, x, 2)
    total = 0.0
    for difference in (predicted - target)[hidden].flatten():  # equation 3, beta = 2
        size = difference.abs()
        total += 0.5 * size**2 / 2 if size <= 2 else size - 1
    found = method([x], 0.0)["latents"]
    count = int(hidden.sum()) * 24
    torch.testing.assert_close(found, total / count, atol=1e-5, rtol=1e-5)


def test_the_upper_layers_alone_make_the_target():
    method, (x,) = build("Data2Vec", "image")
    trunk = method.teacher.slow.trunk
    tokens = method.encoder.tokens(x)
    both, last = trunk.added(tokens, 2), trunk.added(tokens, 1)
    assert len(both) == 2 and len(last) == 1
    torch.testing.assert_close(both[1], last[0])


def test_several_masks_share_one_pass_of_the_teacher():
    method, (x,) = build("Data2Vec", "image")
    method.copies = 3
    shapes, asked = [], []
    block = method.teacher.slow.trunk.blocks[0].mlp
    block.register_forward_hook(lambda m, args, out: shapes.append(len(out)))
    hidden = method.mask(24, (4, 4), None)
    method.mask = lambda batch, grid, device: asked.append(batch) or hidden
    shared = method([x], 0.0)["latents"]
    assert shapes == [8] and asked == [24]
    method.copies, singly = 1, []
    for i in range(3):
        method.mask = lambda batch, grid, device, i=i: hidden[i::3]
        singly.append(method([x], 0.0)["latents"])
    torch.testing.assert_close(shared, sum(singly) / 3)


def test_hidden_tokens_are_never_seen_by_the_student_and_the_teacher_has_no_gradient():
    method, (x,) = build("Data2Vec", "image")
    hidden = masks.blocks(0.6)(8, (4, 4))
    method.mask = lambda batch, grid, device: hidden
    x.requires_grad_()
    method([x], 0.0)["latents"].backward()
    gradient = method.encoder.stem.patches(x.grad).abs().sum(-1)
    assert torch.equal(gradient > 0, ~hidden)
    assert method.kept is method.encoder  # as the authors fine-tune the student
    before = method.teacher.slow.positions.clone()
    method.encoder.positions.data.add_(1.0)
    method.after_step(0.5)
    torch.testing.assert_close(method.teacher.slow.positions, before + 0.1)  # momentum 0.9
