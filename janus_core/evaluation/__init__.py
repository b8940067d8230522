"""The sample world: scenes of coloured shapes, their pictures and captions, and what a model makes of them."""
