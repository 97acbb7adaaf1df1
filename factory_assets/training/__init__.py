"""Training: a small image-text model from scratch on a version, its scores on unseen samples, and TinyCLIP's own."""
