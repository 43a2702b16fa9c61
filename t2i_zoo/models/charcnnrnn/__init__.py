"""char-CNN-RNN, the text encoder of GAN-CLS and StackGAN (Reed et al. 2016)."""

from t2i_zoo.models.charcnnrnn.module import CharCNNRNN

__all__ = ["CharCNNRNN"]
