"""The drawing half of StackGAN++."""

from __future__ import annotations

from torch import nn

from t2i_zoo.models.drawing import PyramidDrawing
from t2i_zoo.models.stackganpp.networks import NextStage


class Half(PyramidDrawing):
    """Half the width from branch to branch; with text or without."""

    text_is_optional = True

    def widths(self) -> list[int]:
        """Channels at each size."""
        return [self.hparams["generator_width"] >> i for i in range(self.hparams["branches"])]

    def stages(self) -> list[nn.Module]:
        """Residual blocks and doubling, told the condition or, without text, the noise."""
        blocks, late = self.hparams["residual_blocks"], self.hparams["late_residual_blocks"]
        late = blocks if late is None else late
        told = self.condition_dim or self.hparams["noise_dim"]
        return [
            NextStage(told, inputs, count)
            for inputs, count in zip(self.widths()[:-1], [blocks, blocks, late, late], strict=False)
        ]
