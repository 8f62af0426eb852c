//! What of the state is certified, and where.
