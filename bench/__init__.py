"""What the product costs, measured on real servers: ``python -m bench``. Each number comes with its lower bound."""
