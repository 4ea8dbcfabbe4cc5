"""Local losses, one file each: how a block is trained from what it computes itself."""
