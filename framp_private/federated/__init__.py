"""The method: descriptors, submodels, local training, prototypes, pullback, and the round that joins them."""
