"""The released method in PyTorch, with which the benchmarks compare speed and memory.

Written from the description of the method and verified with the golden vectors of the released code
(`check`). As in the released code, convolutions are channels-first, the loss computes a
three-dimensional array of pairs, and the responses of all regions to all classes are in memory.
"""

import pathlib

import numpy as np
import torch
from torch import nn
from torch.nn import functional

NORM = {"eps": 1e-3, "momentum": 0.99}
LOWEST = -1e9


class _ConvReluBatchNorm(nn.Module):
    def __init__(self, channels_in: int, channels: int):
        super().__init__()
        self.body = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.bn = nn.BatchNorm2d(channels, **NORM)

    def forward(self, x):
        return self.bn(functional.relu(self.body(x)))


class _RegionContext(nn.Module):
    def __init__(self, channels: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.w_q, self.w_k, self.w_v, self.w_o = (nn.Conv2d(channels, channels, 1) for _ in "qkvo")
        self.sub_network = nn.ModuleDict(
            {
                "conv1": nn.Conv2d(channels, 2 * channels, 1),
                "conv2": nn.Conv2d(2 * channels, channels, 1),
            }
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, h_r):
        batch, channels, height, width = h_r.shape

        def split(x):
            return x.view(batch, self.heads, -1, height * width).transpose(2, 3)

        q, k, v = split(self.w_q(h_r)), split(self.w_k(h_r)), split(self.w_v(h_r))
        scores = q @ k.transpose(2, 3) / (channels // self.heads) ** 0.5
        relations = self.dropout(scores.masked_fill(scores == 0, LOWEST).softmax(dim=-1))
        alpha = (relations @ v).transpose(2, 3).reshape(batch, channels, height, width)
        x = h_r + self.dropout(self.w_o(alpha))
        hidden = functional.relu(self.sub_network["conv1"](x))
        return self.sub_network["conv2"](hidden) + x


class _SceneContext(nn.Module):
    def __init__(self, channels: int, scene_size: int, dropout: float):
        super().__init__()
        self.w_g = nn.Conv2d(scene_size, channels, 1)
        self.channel_conv = nn.ModuleDict({"body": nn.Conv2d(channels, channels, 1)})
        self.gcff = _ConvReluBatchNorm(channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h_r, scene_feature):
        v = functional.leaky_relu(self.channel_conv["body"](h_r), 0.2)
        k = self.w_g(self.dropout(scene_feature)[:, :, None, None])
        alpha = v * torch.sigmoid(v.mean(dim=(2, 3), keepdim=True) * k)
        return alpha + self.gcff(alpha)


class TorchBiAM(nn.Module):
    """The head of the released code.

    Args:
        region_channels: Channels of the region features.
        scene_size: Length of the scene feature.
        embedding_size: Length of a class embedding.
        channels: Channels of both context blocks.
        fused_channels: Channels after the fusion.
        heads: Number of attention heads of the region context block.
        top_k: Number of regions averaged for a class.
        dropout: Dropout rates of the relations and projection, and of the scene feature.
    """

    def __init__(
        self,
        region_channels: int = 512,
        scene_size: int = 4096,
        embedding_size: int = 300,
        channels: int = 256,
        fused_channels: int = 512,
        heads: int = 8,
        top_k: int = 6,
        dropout: tuple[float, float] = (0.1, 0.2),
    ):
        super().__init__()
        self.top_k = top_k
        self.conv_3X3 = _ConvReluBatchNorm(region_channels, channels)
        self.region_context_block = _RegionContext(channels, heads, dropout[0])
        self.scene_context_block = _SceneContext(channels, scene_size, dropout[1])
        self.conv_1X1 = nn.ModuleDict({"body": nn.Conv2d(2 * channels, fused_channels, 1)})
        self.W = nn.Linear(embedding_size, fused_channels)

    def forward(self, region_features, scene_feature, class_embeddings):
        """Returns scores (B, C) for (B, d, h, w), (B, d_g) and (C, d_a)."""
        h_r = self.conv_3X3(region_features)
        e_r = self.region_context_block(h_r)
        e_g = self.scene_context_block(h_r, scene_feature)
        fused = self.conv_1X1["body"](torch.cat([e_r, e_g], dim=1))
        e_f = functional.leaky_relu(fused, 0.2).flatten(2).transpose(1, 2)  # (B, hw, d)
        responses = e_f @ self.W(class_embeddings).T  # (B, hw, C)
        return responses.topk(self.top_k, dim=1).values.mean(dim=1)


def pairwise_loss(scores, labels):
    """Returns the released ranking loss of scores (B, C), from an array of all pairs (B, C, C).

    Images without a positive are left out, as in the released code.
    """
    kept = (labels > 0).any(dim=1)
    scores, labels = scores[kept], labels[kept]
    pairs = (labels > 0)[:, :, None] & (labels < 0)[:, None, :]
    hinges = (1 + scores[:, None, :] - scores[:, :, None]) * pairs
    hinges = hinges.clamp(min=0)
    violated = (hinges > 0).sum(dim=(1, 2))
    return (hinges.sum(dim=(1, 2)) / (violated + 1e-8)).mean()


def check(folder: pathlib.Path) -> dict[str, float]:
    """Returns the largest absolute difference from the golden vector for each quantity."""
    with np.load(folder / "biam_release_small.npz") as arrays:
        golden = {name: torch.from_numpy(np.array(arrays[name])) for name in arrays}
    channels = int(golden["channels"])
    model = TorchBiAM(
        channels=channels, heads=int(golden["heads"]), top_k=int(golden["top_k"]), dropout=(0, 0)
    )
    saved = torch.load(folder / "biam_release_small.pth", weights_only=True)["state_dict"]
    own = model.state_dict()
    model.load_state_dict({name: saved[name].view_as(own[name]) for name in own})
    inputs = (
        golden["region_features"].permute(0, 3, 1, 2),
        golden["scene_feature"],
        golden["class_embeddings"],
    )
    found = {}

    def compare(what: str, value) -> None:
        found[what] = float((value - golden[what]).abs().max())

    with torch.no_grad():
        compare("scores", model.eval()(*inputs))
    scores = golden["scores"].clone().requires_grad_()
    loss = pairwise_loss(scores, golden["labels"])
    compare("loss", loss.detach())
    loss.backward()
    compare("loss_gradient", scores.grad)
    optimizer, losses = torch.optim.SGD(model.train().parameters(), lr=3e-3), []
    for _ in range(len(golden["train_losses"])):
        optimizer.zero_grad()
        loss = pairwise_loss(model(*inputs), golden["labels"])
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    compare("train_losses", torch.stack(losses))
    with torch.no_grad():
        compare("scores_after_training", model.eval()(*inputs))
    return found
