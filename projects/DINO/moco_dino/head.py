"""The projection head of DINO (section 3.2 and appendix C of the paper)."""

from torch import Tensor, nn
from torch.nn import functional as F

from moco_det.modeling.grouped_batch_norm import GroupedBatchNorm1d


class DINOHead(nn.Module):
    """Three linear layers with GELU between them, (n, D) -> (n, B), and the last layer behind the sphere.

    That one takes vectors of unit length and has rows of unit length: weight normalization whose length stays 1.
    """

    def __init__(
        self, in_dim: int, hidden_dim: int, bottleneck_dim: int, out_dim: int, bn_group_size: int | None
    ):
        """
        Args:
            bn_group_size: images that batch norm after the hidden layers normalizes together; None: no batch norm.
        """
        super().__init__()
        layers: list[nn.Module] = []
        for inputs in (in_dim, hidden_dim):
            layers.append(nn.Linear(inputs, hidden_dim))
            if bn_group_size is not None:
                layers.append(GroupedBatchNorm1d(hidden_dim, bn_group_size))
            layers.append(nn.GELU())
        layers.append(nn.Linear(hidden_dim, bottleneck_dim))
        for layer in layers:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.mlp = nn.Sequential(*layers)
        self.last_layer = nn.Linear(bottleneck_dim, out_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Up to the last layer: (n, D) -> (n, B)."""
        return self.mlp(x)

    def last(self, z: Tensor) -> Tensor:
        """Unit-length (n, B) -> (n, J)."""
        return F.linear(z, F.normalize(self.last_layer.weight, dim=1))
