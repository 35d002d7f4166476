//! shell: streaming connections over tokio.
