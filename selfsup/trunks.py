"""Trunks: tokens in, tokens out."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu

from .attention import attend
from .chunks import Chunked, in_chunks
from .columns import Conv2d
from .fused import linear, linear_gelu


class Attention(nn.Module):
    """Multi-head self-attention (arXiv 1706.03762); with `causal`, of none that comes later."""

    def __init__(self, dim: int, heads: int, causal: bool = False):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def split(self, x: Float[Tensor, "b n d"]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (b, h, n, d / h)."""
        b, n, _ = x.shape
        return linear(self.qkv, x).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)

    def forward(self, x: Float[Tensor, "b n d"], first: int | None = None) -> Tensor:
        """(b, n, d), or (b, first, d) where only the first tokens are wanted."""
        q, k, v = self.split(x)
        mixed = attend(q[:, :, :first], k, v, causal=self.causal)  # (b, h, n or first, d / h)
        return linear(self.proj, mixed.transpose(1, 2).flatten(2))

    def weights(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b h n n"]:
        """What each token looks at: for pictures, not for training."""
        q, k, _ = self.split(x)
        scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
        if self.causal:
            scores = scores + torch.full_like(scores, -torch.inf).triu(1)
        return scores.softmax(-1)


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return linear(self.fc2, linear_gelu(self.fc1, x))


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, mlp_ratio: float = 4.0, causal: bool = False):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, heads, causal)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Float[Tensor, "b n d"], first: int | None = None) -> Tensor:
        """(b, n, d), or (b, first, d) where only the first tokens are wanted."""
        x = x[:, :first] + self.attn(self.norm1(x), first)
        return x + self.mlp(self.norm2(x))


class Transformer(Chunked):
    """Pre-norm transformer (ViT, arXiv 2010.11929). Layer names are those of timm's ViT.

    `prefix` learned tokens (a cls token, then registers, arXiv 2309.16588) go in front of the
    tokens that are given and are taken off again, so callers count only their own. With `causal`
    no token sees later ones.
    """

    def __init__(self, dim: int, depth: int, heads: int, prefix: int = 0, causal: bool = False):
        super().__init__()
        self.prefix = nn.Parameter(0.02 * torch.randn(prefix, dim)) if prefix else None
        self.blocks = nn.ModuleList(Block(dim, heads, causal=causal) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)  # as MAE and DINO's ViT for pretraining
                nn.init.zeros_(module.bias)

    @in_chunks
    def split(self, tokens: Float[Tensor, "b n d"]) -> tuple[Tensor, Tensor]:
        """Final prefix tokens (b, p, d) and final tokens (b, n, d)."""
        x = self.norm(self._blocks(tokens, self.blocks))
        p = 0 if self.prefix is None else len(self.prefix)
        return x[:, :p], x[:, p:]

    def forward(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return self.split(tokens)[1]

    @in_chunks
    def cls(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
        """The final cls token. The last block computes no other, which is most of its work."""
        x = self.blocks[-1](self._blocks(tokens, self.blocks[:-1]), 1)
        return self.norm(x)[:, 0]

    def added(
        self, tokens: Float[Tensor, "b n d"], last: int, ends: bool = False
    ) -> list[Float[Tensor, "b n d"]]:
        """What the feed-forward parts of the last blocks add to each token; with `ends` the sums,
        which these blocks end with."""
        n, found = tokens.shape[1], []
        x = self._blocks(tokens, self.blocks[:-last])
        for block in self.blocks[-last:]:
            x = x + block.attn(block.norm1(x))
            part = block.mlp(block.norm2(x))
            x = x + part
            found.append(x if ends else part)
        return [part[:, -n:] for part in found]

    def attention(self, tokens: Float[Tensor, "b n d"]) -> Float[Tensor, "b h m m"]:
        """The last block's attention weights; m counts prefix tokens too, which come first."""
        last = self.blocks[-1]
        return last.attn.weights(last.norm1(self._blocks(tokens, self.blocks[:-1])))

    def _blocks(self, tokens, blocks):
        if self.prefix is not None:
            tokens = torch.cat([self.prefix.expand(len(tokens), -1, -1).to(tokens), tokens], 1)
        for block in blocks:
            tokens = block(tokens)
        return tokens


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (arXiv 1512.03385, figure 5 left)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1 = Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, x):
        y = relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        y += x if self.downsample is None else self.downsample(x)
        return relu(y, inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 (figure 5 right), with the stride in the 3x3 as everybody has it since."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = _shortcut(inputs, 4 * width, stride)

    def forward(self, x):
        y = relu(self.bn1(self.conv1(x)), inplace=True)
        y = relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        y += x if self.downsample is None else self.downsample(x)
        return relu(y, inplace=True)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
