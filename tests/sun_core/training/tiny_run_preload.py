"""What the fork server imports once, so that its processes start at once."""

import tiny_run
import torch.utils.tensorboard  # noqa: F401

tiny_run.prepare()
