import math

import pytest
import torch
from einops import rearrange

from selfsup.encoder import Encoder, build, sincos
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


DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3)}


def as_in_the_paper(name: str, state: dict, x: torch.Tensor, large: bool) -> torch.Tensor:
    """Table 1 and figure 5 of He et al., 2015, layer by layer: the last feature map."""

    def convolved(x, conv, norm, stride, padding):
        x = torch.nn.functional.conv2d(x, state[f"{conv}.weight"], None, stride, padding)
        mean, var = state[f"{norm}.running_mean"], state[f"{norm}.running_var"]
        return torch.nn.functional.batch_norm(
            x, mean, var, state[f"{norm}.weight"], state[f"{norm}.bias"]
        )

    x = convolved(x, "conv1", "bn1", 2, 3) if large else convolved(x, "conv1", "bn1", 1, 1)
    x = x.clamp(min=0)
    if large:
        x = torch.nn.functional.max_pool2d(x, kernel_size=3, stride=2, padding=1)
    for stage, depth in enumerate(DEPTHS[name]):
        for i in range(depth):
            at, stride = f"layer{stage + 1}.{i}", 2 if stage > 0 and i == 0 else 1
            if name == "resnet18":
                y = convolved(x, f"{at}.conv1", f"{at}.bn1", stride, 1).clamp(min=0)
                y = convolved(y, f"{at}.conv2", f"{at}.bn2", 1, 1)
            else:  # the stride in the 3x3, as everybody has it since
                y = convolved(x, f"{at}.conv1", f"{at}.bn1", 1, 0).clamp(min=0)
                y = convolved(y, f"{at}.conv2", f"{at}.bn2", stride, 1).clamp(min=0)
                y = convolved(y, f"{at}.conv3", f"{at}.bn3", 1, 0)
            if x.shape != y.shape:
                x = convolved(x, f"{at}.downsample.0", f"{at}.downsample.1", stride, 0)
            x = (x + y).clamp(min=0)
    assert f"layer4.{DEPTHS[name][3]}.conv1.weight" not in state
    return x


@pytest.mark.parametrize(
    ("name", "side", "width"),
    [("resnet18", 24, 0.5), ("resnet18", 72, 0.25), ("resnet50", 24, 0.25), ("resnet50", 72, 0.5)],
)
def test_resnet_against_a_slow_reading_of_the_paper(name, side, width):
    torch.manual_seed(0)
    encoder = build(name, side, width=width).double().eval()
    with torch.no_grad():
        for key, value in encoder.state_dict().items():  # no gain is 0, no statistics are trivial
            if value.ndim == 1:
                gain = key.endswith(("var", "weight"))
                value.uniform_(0.5, 1.5) if gain else value.normal_(0, 0.2)
        x = torch.randn(2, 3, side, side, dtype=torch.float64)
        expected = as_in_the_paper(name, encoder.state_dict(), x, large=side > 64)
        torch.testing.assert_close(encoder.features(x), rearrange(expected, "b d h w -> b (h w) d"))
        torch.testing.assert_close(encoder(x), expected.mean((2, 3)))
    assert expected.shape[1] == encoder.dim == width * (512 if name == "resnet18" else 2048)
    assert expected.shape[2:] == encoder.grid
    assert (expected[0] - expected[1]).abs().mean() > 0.01  # what is shown gets through


def test_the_small_stem_is_for_pictures_up_to_64_pixels():
    for size, kernel, stride, places in ((64, 3, 1, 8), (65, 7, 2, 3), ((32, 65), 7, 2, None)):
        encoder = build("resnet18", size, width=0.125)
        assert encoder.conv1.kernel_size == (kernel, kernel)
        assert encoder.conv1.stride == (stride, stride)
        if places:
            found = encoder.eval().features(torch.randn(1, 3, size, size)).shape[1]
            assert encoder.grid == (places, places) and found == places**2


def cubic(before: int, after: int) -> torch.Tensor:
    """(after, before): Keys' bicubic weights along one axis, a = -3/4, edges repeated."""
    a, table = -0.75, torch.zeros(after, before)
    for row in range(after):
        place = (row + 0.5) * before / after - 0.5
        for tap in range(math.floor(place) - 1, math.floor(place) + 3):
            d = abs(place - tap)
            near = (a + 2) * d**3 - (a + 3) * d**2 + 1
            far = a * (d**3 - 5 * d**2 + 8 * d - 4)
            table[row, min(max(tap, 0), before - 1)] += near if d <= 1 else far
    return table


@pytest.mark.parametrize("grid", [(8, 5), (6, 9), (3, 4), (2, 12)])
def test_positions_elsewhere_are_bicubic_in_the_grid(grid):
    """Also of a grid that is not square, and row by row."""
    encoder = Encoder(Patches((8, 12), (2, 2), 3, 16), dim=16, depth=1, heads=2)
    assert encoder.grid == (4, 6)
    square = rearrange(encoder.positions, "(h w) d -> h w d", h=4)
    rows, columns = cubic(4, grid[0]), cubic(6, grid[1])
    expected = torch.einsum("rh,cw,hwd->rcd", rows, columns, square).flatten(0, 1)
    torch.testing.assert_close(encoder.positions_at(grid), expected, atol=1e-5, rtol=1e-5)
    assert encoder.positions_at((4, 6)) is encoder.positions
    x = torch.randn(1, 3, 2 * grid[0], 2 * grid[1])  # and each place gets its own
    torch.testing.assert_close(
        encoder.tokens(x) - encoder.embed(x), expected[None], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("size", "cut", "other"),
    [
        ((24,), (2,), (30,)),
        ((8, 12), (2, 2), (7, 9)),
        ((8, 8, 12), (2, 2, 2), (6, 3, 9)),
    ],
)
def test_a_ramp_of_positions_stays_a_ramp(size, cut, other):
    """Along its own axis alone, at places that lie where the same pictures have them."""
    encoder = Encoder(Patches(size, cut, 3, 16), dim=16, depth=1, heads=2)
    axes = torch.meshgrid(*(torch.arange(g) / g for g in encoder.grid), indexing="ij")
    with torch.no_grad():
        for i, axis in enumerate(axes):
            encoder.positions[:, i] = axis.flatten()
    found = encoder.positions_at(other).detach()
    for i, (before, after) in enumerate(zip(encoder.grid, other, strict=True)):
        line = found[:, i].view(other).movedim(i, 0).reshape(after, -1)
        assert (line - line[:, :1]).abs().max() < 1e-6  # the same on all other axes
        line, wanted = line[:, 0], (torch.arange(after) + 0.5) / after - 0.5 / before
        inside = (wanted >= 1 / before) & (wanted < 1 - 2 / before)
        # bicubic weights with a = -3/4 are off by up to 5 % of a place between two
        assert (line - wanted)[inside].abs().max() < (0.06 if len(size) == 2 else 1e-5) / before
        assert inside.any() and (line.diff() > 0)[1:-1].all()


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
