"""The losses of StackGAN as its PyTorch code weighs them, as functions of logits; all results are float32 scalars.

The authors take the binary cross-entropy of a sigmoid; see ``t2i_zoo.nn.bce``. The paper's equations 3 to 6 have one
real and one fake term; the mismatched one, the unconditional ones and all weights are the code's.
"""

from __future__ import annotations

from torch import Tensor

from t2i_zoo.nn import bce, discriminator_loss, kl_to_normal, mismatched

__all__ = ["discriminator_loss", "generator_loss", "mismatched"]


def generator_loss(
    fake: Tensor, mu: Tensor, logvar: Tensor, *, fake_alone: Tensor | None = None, kl_weight: float = 2.0
) -> dict[str, Tensor]:
    """Non-saturating loss, in Stage II on pictures alone too, and the weighted KL divergence of the condition.

    Args:
        fake: logits (B,) of generated pictures with their captions.
        mu: (B, C), mean of the condition.
        logvar: (B, C), its log-variance.
        fake_alone: logits (B,) of generated pictures without captions; None in Stage I.
        kl_weight: the authors' ``COEFF.KL``.
    """
    terms = {"adversarial": bce(fake, 1.0), "kl": kl_to_normal(mu, logvar)}
    loss = terms["adversarial"] + kl_weight * terms["kl"]
    if fake_alone is not None:
        terms["alone"] = bce(fake_alone, 1.0)
        loss = loss + terms["alone"]
    return {"loss": loss, **terms}
