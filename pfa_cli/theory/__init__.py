"""What the paper proves or estimates, in closed form and by simulation: NumPy alone, no network is trained here."""
