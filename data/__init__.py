"""From text to batches: corpora, reading, checking, tokenizing, preparing, batching."""
