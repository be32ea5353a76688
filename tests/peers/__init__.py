"""FasterViT in other libraries, as docs/peers.md says."""
