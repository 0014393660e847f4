"""From a pretrained encoder to a network that answers: what `evaluate` and `finetune` share."""
