def normalise(model): pass
