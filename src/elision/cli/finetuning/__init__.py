"""What `elision finetune` can teach a model, one file each."""
