"""PyTorch modules for models that are trained with them; what is here exports as it stands."""
