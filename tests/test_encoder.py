import pytest
import torch
from einops import rearrange

from selfsup.encoder import build, sincos
from selfsup.errors import SelfsupError
from selfsup.stems import Patches
from selfsup.teacher import Teacher


def test_patches_match_einops_and_are_undone():
    x = torch.randn(2, 3, 16, 24)
    stem = Patches((16, 24), (4, 8), 3, 5)
    expected = rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", p=4, q=8)
    assert torch.equal(stem.patches(x), expected)
    assert torch.equal(stem.unpatch(expected), x)
    y = torch.randn(2, 3, 4, 8, 8)
    video = Patches((4, 8, 8), (2, 4, 4), 3, 5)
    expected = rearrange(y, "b c (t r) (h p) (w q) -> b (t h w) (c r p q)", r=2, p=4, q=4)
    assert torch.equal(video.patches(y), expected) and torch.equal(video.unpatch(expected), y)


def test_stem_is_a_strided_convolution():
    x, stem = torch.randn(2, 3, 16, 16), Patches((16, 16), (4, 4), 3, 5)
    expected = torch.nn.functional.conv2d(x, stem.weight, stem.bias, stride=4)
    torch.testing.assert_close(stem(x), expected.flatten(2).transpose(1, 2))


def test_sincos_positions_against_a_slow_reading():
    table = sincos((3, 5), 16)
    for row in range(3):
        for column in range(5):
            expected = []
            for place in (row, column):
                angles = [place / 10_000 ** (k / 4) for k in range(4)]
                expected += [torch.tensor(angles).sin(), torch.tensor(angles).cos()]
            torch.testing.assert_close(table[row * 5 + column], torch.cat(expected))


@pytest.mark.parametrize(
    ("name", "parameters", "dim"),
    # timm's parameter counts without a classifier, with a cls token and 197 positions for ViTs
    [("vit_tiny", 5_524_416, 192), ("vit_small", 21_665_664, 384), ("vit_base", 85_798_656, 768),
     ("resnet18", 11_176_512, 512), ("resnet50", 23_508_032, 2048)],
)  # fmt: skip
def test_sizes_are_those_of_the_papers(name, parameters, dim):
    with torch.device("meta"):
        settings = {"cls": True} if name.startswith("vit") else {}
        encoder = build(name, 224, **settings)
    count = sum(p.numel() for p in encoder.parameters())
    assert encoder.dim == dim and count + (dim if name.startswith("vit") else 0) == parameters


@pytest.mark.parametrize("name", ["vit_tiny", "resnet18"])
def test_other_resolutions_are_encoded(name):
    encoder = build(name, 32).eval()
    with torch.inference_mode():
        for size in (16, 32, 48):
            x = torch.randn(2, 3, size, size)
            assert encoder(x).shape == (2, encoder.dim)
    with pytest.raises(SelfsupError, match="do not tile"):
        build("vit_tiny", 32)(torch.randn(1, 3, 30, 30))


def test_cls_token_registers_and_pooling():
    encoder = build("vit_tiny", 32, cls=True, registers=2, pool="cls", depth=1).eval()
    x = torch.randn(2, 3, 32, 32)
    assert encoder.features(x).shape == (2, 64, 192) and encoder(x).shape == (2, 192)
    weights = encoder.attention(x)
    assert weights.shape == (2, 3, 67, 67)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 67))
    with pytest.raises(SelfsupError, match="cls token"):
        build("vit_tiny", 32, pool="cls")


def test_a_block_against_torch_own():
    torch.manual_seed(0)
    block = build("vit_tiny", 32, depth=1).trunk.blocks[0]
    with torch.no_grad():
        for p in block.parameters():
            p.normal_(0, 0.05)
    peer = torch.nn.TransformerEncoderLayer(
        192, 3, 768, 0.0, "gelu", 1e-6, batch_first=True, norm_first=True
    )
    names = {
        "self_attn.in_proj_weight": "attn.qkv.weight",
        "self_attn.in_proj_bias": "attn.qkv.bias",
        "self_attn.out_proj.weight": "attn.proj.weight",
        "self_attn.out_proj.bias": "attn.proj.bias",
        "linear1.weight": "mlp.fc1.weight",
        "linear1.bias": "mlp.fc1.bias",
        "linear2.weight": "mlp.fc2.weight",
        "linear2.bias": "mlp.fc2.bias",
    }
    ours = block.state_dict()
    peer.load_state_dict({key: ours[names.get(key, key)] for key in peer.state_dict()})
    x = torch.randn(2, 9, 192)
    torch.testing.assert_close(block(x), peer(x), atol=1e-5, rtol=1e-5)


def test_follow_is_an_exponential_moving_average():
    student = torch.nn.Linear(2, 2)
    teacher = Teacher(student)
    old = student.weight.detach().clone()
    with torch.no_grad():
        student.weight += 1.0
    teacher.follow(student, momentum=0.9)
    torch.testing.assert_close(teacher.slow.weight, 0.9 * old + 0.1 * student.weight)
    assert not any(p.requires_grad for p in teacher.parameters())


def test_the_cls_token_alone_is_that_of_all_tokens():
    """`forward` with pool="cls" leaves tokens out of the last block: same value, same gradients."""
    torch.manual_seed(0)
    encoder = build("vit_tiny", 32, patch=8, depth=3, cls=True, registers=2, pool="cls").double()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    found, right = encoder(x), encoder.trunk.split(encoder.tokens(x))[0][:, 0]
    torch.testing.assert_close(found, right)
    weights = list(encoder.parameters())
    direction = torch.randn_like(found)
    ours = torch.autograd.grad(found, weights, direction)
    for one, other in zip(ours, torch.autograd.grad(right, weights, direction), strict=True):
        torch.testing.assert_close(one, other)
