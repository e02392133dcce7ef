"""What a training step costs: every algorithm against BP, BP against plain torch and against its matrix products."""
