"""Weights for a module that do not depend on how torch initialises it."""

import numpy as np
import torch


def seeded(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Fill a module's state, name by name in sorted order: near 1 for norms, small for biases, 1 / root(inputs) else.

    Tables that are looked up (their names hold "embed" or "token") stay at 1.
    """
    rng, state = np.random.default_rng(seed), module.state_dict()
    for name in sorted(state):
        shape = tuple(state[name].shape)
        values = rng.standard_normal(shape).astype(np.float32)
        if len(shape) == 1:
            values = values * np.float32(0.1) + np.float32(name.endswith("weight"))
        elif len(shape) > 2 or ("embed" not in name and "token" not in name):
            values *= np.float32(np.prod(shape[1:]) ** -0.5)
        state[name] = torch.from_numpy(values)
    module.load_state_dict(state)
    return module.eval()
