//! What the documents say is what the modules are.
