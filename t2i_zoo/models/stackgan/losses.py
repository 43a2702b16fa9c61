"""The generator's loss of StackGAN as its PyTorch code weighs it, as a function of logits; results are float32 scalars.

The paper's equations 3 to 6 have one real and one fake term; the mismatched one, the unconditional ones and all weights
are the code's. The discriminator's loss is ``t2i_zoo.nn.discriminator_loss``.
"""

from __future__ import annotations

from torch import Tensor

from t2i_zoo.nn import PAPER, AdversarialLoss, Logits, kl_to_normal, mean, weighted


def generator_loss(
    fake: Logits,
    mu: Tensor,
    logvar: Tensor,
    *,
    kl_weight: float = 2.0,
    real: Logits | None = None,
    loss: AdversarialLoss = PAPER,
) -> dict[str, Tensor]:
    """Adversarial loss, in Stage II on images alone too, and the weighted KL divergence of the condition.

    Args:
        fake: of generated images with their captions; without unconditional logits in Stage I.
        mu: (B, C), mean of the condition.
        logvar: (B, C), its log-variance.
        kl_weight: the authors' ``COEFF.KL``.
        real: of real images with the same captions, for a relative ``loss``.
        loss: the adversarial loss.
    """
    pairs = zip(("adversarial", "alone"), fake, real or Logits(), strict=False)
    terms = {name: mean(loss.generator(ours, theirs)) for name, ours, theirs in pairs if ours is not None}
    return weighted(terms | {"kl": kl_to_normal(mu, logvar)}, kl=kl_weight)
