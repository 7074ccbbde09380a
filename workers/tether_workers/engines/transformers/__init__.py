"""The engine that runs causal language models through Hugging Face's transformers."""
