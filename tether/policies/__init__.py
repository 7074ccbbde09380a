"""What a tenant may do, and what it gets where it does not say: its policy, a document that operators set."""
