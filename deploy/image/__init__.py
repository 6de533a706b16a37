"""What is in the image beside the product: its roles, and what it was built from."""
