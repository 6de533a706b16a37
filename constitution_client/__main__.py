"""``python -m constitution_client``: the same as the script ``constitution``."""

from constitution_client.main import main

if __name__ == "__main__":
    main()
