"""How `elision predict` writes what each kind of fine-tuned model says, one file each."""
