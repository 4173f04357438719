"""Training labels that the model doubts: found out of fold, shown, corrected."""
