"""Files inside ZIPs: what an archive holds, which of it a glob means, its bytes."""
