"""The guests' own tests, run on zmreg: `make guests`. Not part of `make test`: they are others', and take minutes."""
