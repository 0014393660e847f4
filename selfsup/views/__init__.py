"""Batched augmentation operations, one file for each kind of data, that the modalities compose."""
