"""What compression costs real models.

A text is prefilled once. Its cache is compressed by every method at every ratio: by semproxy through its own path (a real sidecar
and the transformers adapter of connectors/python), by the presses of kvpress, by Attention Matching. What follows the text, or a
question about it, is then forced through the model on each compressed cache, and held against the full one.
"""
