"""What `featurestore plan --cost` computes from history: what definitions will store, and what a lookup takes."""
