"""Independent references, written in NumPy from the formulas."""
